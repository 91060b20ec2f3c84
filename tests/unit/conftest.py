"""Settings of the property tests, and the releases that several tests search.

Properties see the same examples in every run, with no time limit on any of them.
"""

import pytest
from hypothesis import settings

from rangefinder.metric import Metric
from tests.unit.built import Built, built

settings.register_profile("unit", derandomize=True, deadline=None, database=None, max_examples=40)
settings.load_profile("unit")


@pytest.fixture(scope="session", params=list(Metric))
def small(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Built:
    """A release of 3,000 items in two shards, for each metric."""
    return built(request.param, tmp_path_factory.mktemp(request.param.value))
