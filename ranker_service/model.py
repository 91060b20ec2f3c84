"""A model in ONNX: checked against what is said of it, scored. Only this file knows onnxruntime."""

from collections.abc import Sequence

import numpy as np
import onnxruntime

from rangefinder.deadline import Deadline
from rangefinder.errors import ReleaseDamaged
from ranker_service.features import Floats

INPUT = "features"

# Rows scored between two looks at the clock: some tenths of a millisecond. The usual request is one.
CHUNK_ROWS = 512

_FATAL_ONLY = 4  # What goes wrong is raised, too.


class Model:
    """Scores rows of features. Any thread may call it; each call uses one core, the caller's.

    Input: INPUT, float32 (rows, features). Outputs: one for each head, of its name, float32 (rows, 1).
    """

    def __init__(self, content: bytes, feature_count: int, heads: Sequence[str], source: str) -> None:
        """Load; `source` names it in errors. Raises ReleaseDamaged where it is not such a model."""
        self._heads = list(heads)
        self._session = _load(content, source)
        taken = [(each.name, each.type, each.shape[1:]) for each in self._session.get_inputs()]
        _require("takes", taken, [(INPUT, "tensor(float)", [feature_count])], source)
        given = [(each.name, each.type, each.shape[1:]) for each in self._session.get_outputs()]
        _require("gives", given, [(name, "tensor(float)", [1]) for name in heads], source)

    def score(self, rows: Floats, deadline: Deadline) -> Floats:
        """Scores by head, shape (rows scored, heads): the first rows, as many as there is time for.

        A row's scores are the same bits whatever stands beside it.
        """
        parts: list[Floats] = []
        for start in range(0, len(rows), CHUNK_ROWS):
            if deadline.is_spent():
                break
            columns = self._session.run(self._heads, {INPUT: rows[start : start + CHUNK_ROWS]})
            parts.append(columns[0] if len(columns) == 1 else np.concatenate(columns, axis=1))
        if len(parts) == 1:
            return parts[0]
        return np.concatenate([np.empty((0, len(self._heads)), np.float32), *parts])


def _load(content: bytes, source: str) -> "onnxruntime.InferenceSession":
    """One thread: a sum over trees that several share would depend on how they share it."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = _FATAL_ONLY
    try:
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # Its own classes share no base but this.
        line = " ".join(str(error).split())
        raise ReleaseDamaged(f"{source}: no model that onnxruntime loads: {line[:200]}") from None


_Ports = list[tuple[str, str, list[int | str | None]]]


def _require(verb: str, found: _Ports, expected: _Ports, source: str) -> None:
    if found != expected:
        raise ReleaseDamaged(f"{source}: {verb} {_spelt(found)}, but its card says {_spelt(expected)}")


def _spelt(ports: _Ports) -> str:
    return "; ".join(f"{name} {kind} of width {shape}" for name, kind, shape in ports) or "nothing"
