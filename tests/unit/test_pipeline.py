"""Pipelines: configuration checked at start, and what a request may change of one."""

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rangefinder.candidates import CANDIDATE_COUNT, QUOTAS, SEED_COUNT_MAX, WEIGHTS
from rangefinder.documents import from_yaml, to_yaml
from rangefinder.errors import InputRefused, InvalidRequest
from router.config import RouterConfig
from router.pipeline import Bounds, Pipeline, pipeline_of


def parsed(text: str) -> RouterConfig:
    return from_yaml(text, RouterConfig, "router.yaml")


def test_the_default_pipeline_is_what_rankers_are_trained_on() -> None:
    """Its quotas, weights, seeds and candidates are those of rangefinder.candidates; it exists in
    whatever configuration, and a pipeline that changes one key has the other defaults."""
    for config in (RouterConfig(), parsed("pipelines: {other: {rank: false}}")):
        pipeline = pipeline_of(config.pipelines, "")
        assert pipeline_of(config.pipelines, "default") == pipeline == Pipeline()
        assert QUOTAS == {source.name: source.quota for source in pipeline.sources}
        assert WEIGHTS == {source.name: source.weight for source in pipeline.sources}
        assert (CANDIDATE_COUNT, True) == (pipeline.candidate_count, pipeline.rank)
        assert pipeline.item_to_item.seed_count == SEED_COUNT_MAX
        assert not any(source.required for source in pipeline.sources)
    changed = pipeline_of(parsed("pipelines: {a: {popularity: {quota: 7}}}").pipelines, "a")
    assert changed == replace(Pipeline(), popularity=replace(Pipeline().popularity, quota=7))


def test_a_pipeline_is_written_and_read_back() -> None:
    """What `up` writes is what a router reads."""
    config = RouterConfig(pipelines={"a": Pipeline(rank=False, candidate_count=7, parameters={})})
    assert parsed(to_yaml(config)) == config


BAD = {
    "index: {quota: 10001}": "index.quota: 10001 is not in [0, 10000]",
    "index: {quota: -1}": "index.quota: -1 is not in",
    "index: {quota: 2.5}": "index.quota",
    "index: {quota: many}": "index.quota",
    "index: {quotas: 3}": "index.quotas: unknown key",
    "index: {seed_count: 3}": "index.seed_count: unknown key",
    "co_occurrence: {quota: 3}": "co_occurrence: unknown key",
    "popularity: {weight: -0.5}": "popularity.weight: -0.5 is not in",
    "popularity: {weight: .nan}": "popularity.weight: nan is not in",
    "popularity: {weight: .inf}": "popularity.weight: inf is not in",
    "popularity: {timeout_share: 0}": "popularity.timeout_share: 0 is not in",
    "popularity: {timeout_share: 1.5}": "popularity.timeout_share: 1.5 is not in",
    "popularity: {required: perhaps}": "popularity.required",
    "item_to_item: {seed_count: 0}": "item_to_item.seed_count: 0 is not in",
    "item_to_item: {seed_count: 1001}": "item_to_item.seed_count: 1001 is not in",
    "candidate_count: 0": "candidate_count: 0 is not in [1, 10000]",
    "candidate_count: 10001": "candidate_count: 10001 is not in",
    "rank: 2": "rank",
    "parameters: {candidate_count: {minimum: 1, maximum: 2}}": "no such parameter: index.quota",
    "parameters: {index.required: {minimum: 0, maximum: 1}}": "parameters.index.required: no such",
    "parameters: {index.quota: {minimum: 3, maximum: 2}}": "the minimum exceeds the maximum",
    "parameters: {index.quota: {minimum: 3, maximum: 20000}}": "parameters.index.quota: 20000 is not",
    "parameters: {index.quota: {minimum: 3}}": "parameters.index.quota.maximum",
    "parameters: {index.quota: 3}": "parameters.index.quota",
}


@pytest.mark.parametrize("text", BAD)
def test_a_bad_pipeline_is_refused_at_start(text: str) -> None:
    """In one line that names the file and the key."""
    with pytest.raises(InputRefused) as refused:
        parsed(f"pipelines: {{a: {{{text}}}}}")
    assert BAD[text] in str(refused.value)
    assert str(refused.value).startswith("router.yaml: ")
    assert "\n" not in str(refused.value)


DECLARED = Pipeline(
    parameters={
        "index.quota": Bounds(minimum=10, maximum=20),
        "item_to_item.seed_count": Bounds(minimum=1, maximum=5),
        "popularity.weight": Bounds(minimum=0, maximum=2),
        "popularity.timeout_share": Bounds(minimum=0.1, maximum=0.5),
        "rank": Bounds(minimum=0, maximum=1),
    }
)


def test_declared_parameters_are_overridden() -> None:
    """Each changes its own key and nothing else."""
    changed = DECLARED.overridden(
        {
            "index.quota": "20",
            "item_to_item.seed_count": "1",
            "popularity.weight": "0.5",
            "popularity.timeout_share": "1e-1",
            "rank": "0",
        }
    )
    assert changed == replace(
        DECLARED,
        index=replace(DECLARED.index, quota=20),
        item_to_item=replace(DECLARED.item_to_item, seed_count=1),
        popularity=replace(DECLARED.popularity, weight=0.5, timeout_share=0.1),
        rank=False,
    )
    assert DECLARED.overridden({}) is DECLARED


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("index.quota", "9"),
        ("index.quota", "21"),
        ("index.quota", "15.0"),
        ("index.quota", ""),
        ("popularity.weight", "nan"),
        ("popularity.weight", "inf"),
        ("popularity.weight", "-1e-9"),
        ("popularity.weight", "heavy"),
        ("rank", "true"),
        ("rank", "2"),
        ("item_to_item.quota", "5"),
        ("index", "5"),
        ("quota", "5"),
        ("", "5"),
        ("x" * 10_000, "5"),
    ],
)
def test_other_parameters_are_refused(name: str, text: str) -> None:
    """Undeclared ones, and values that are out of bounds or no number, however long."""
    with pytest.raises(InvalidRequest) as refused:
        DECLARED.overridden({name: text})
    assert refused.value.violation.field == "parameters"
    assert len(str(refused.value)) < 500


@given(st.floats(allow_nan=True))
def test_no_value_out_of_bounds_passes(value: float) -> None:
    """A float is taken if and only if it lies within the declared bounds."""
    is_within = not math.isnan(value) and 0 <= value <= 2
    try:
        assert DECLARED.overridden({"popularity.weight": repr(value)}).popularity.weight == value
        is_taken = True
    except InvalidRequest:
        is_taken = False
    assert is_within == is_taken


def test_an_unknown_pipeline_is_refused() -> None:
    """The known ones are named."""
    with pytest.raises(InvalidRequest, match=r"^pipeline: 'c': no such pipeline: a, b, default$"):
        pipeline_of({"b": Pipeline(), "a": Pipeline()}, "c")
