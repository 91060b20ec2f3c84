"""A boosted model as ONNX: trees, and the anchor they were boosted from. Only this file knows onnx.

relevance = trees(features) + anchor.weight * clip(features[anchor.feature], 0, anchor.most)

Only operations that treat each row by itself, so that a row's score never depends on the others.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper
from onnxmltools import convert_lightgbm
from onnxmltools.convert.common.data_types import FloatTensorType

from ranker_service.features import Floats
from ranker_service.model import INPUT

# Every onnxruntime in our range reads it. What needs none so new is declared as older by onnxmltools.
_OPSET = 15

_TREES = "trees"


@dataclass(frozen=True, slots=True, kw_only=True)
class Anchor:
    """The score before any tree: a feature, in bounds, times a weight."""

    feature: int  # Its column.
    weight: float
    most: float

    def of(self, rows: Floats) -> npt.NDArray[np.float64]:
        """Shape (rows,)."""
        return self.weight * np.clip(rows[:, self.feature].astype(np.float64), 0.0, self.most)


def onnx_of(booster: Any, feature_count: int, anchor: Anchor, output: str) -> bytes:
    """The model's bytes: the same for the same trees. `booster` is LightGBM's, its input is INPUT."""
    shape = FloatTensorType([None, feature_count])
    converted = convert_lightgbm(
        booster, name="ranker", initial_types=[(INPUT, shape)], target_opset=_OPSET
    )
    trees = next(node for node in converted.graph.node if node.op_type == "TreeEnsembleRegressor")
    trees.output[:] = [_TREES]
    constants: dict[str, npt.NDArray[np.generic]] = {
        "column": np.array([anchor.feature], np.int64),
        "weight": np.array(anchor.weight, np.float32),
    }
    nodes = [
        trees,
        helper.make_node("Gather", [INPUT, "column"], ["retrieved"], axis=1),
        helper.make_node("Clip", ["retrieved"], ["bounded"], min=0.0, max=anchor.most),
        helper.make_node("Mul", ["bounded", "weight"], ["anchor"]),
        helper.make_node("Add", [_TREES, "anchor"], [output]),
    ]
    del converted.graph.node[:], converted.graph.output[:]
    converted.graph.node.extend(nodes)
    converted.graph.initializer.extend(
        numpy_helper.from_array(value, name) for name, value in constants.items()
    )
    converted.graph.output.append(
        helper.make_tensor_value_info(output, onnx.TensorProto.FLOAT, [None, 1])
    )
    onnx.checker.check_model(converted)
    content: bytes = converted.SerializeToString(deterministic=True)
    return content
