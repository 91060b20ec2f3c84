"""Quality of lists against cases worked out by hand, and bounds that hold as often as they say."""

import math

import numpy as np

from training.metrics import mean_with_bounds, quality_of


def test_quality_is_that_of_the_definitions() -> None:
    """Recall, NDCG and hit rate at 3 of four users, each worked out by hand."""
    recommended = np.array([[1, 2, 3], [1, 2, 3], [4, -1, -1], [7, 8, 9]])
    relevant = [np.array([2]), np.array([1, 2, 3, 4]), np.array([4, 5]), np.array([1])]
    quality = quality_of(recommended, relevant)

    second = 1 / math.log2(3)
    assert [1.0, 0.75, 0.5, 0.0] == quality.recall.tolist()
    assert np.allclose([second, 1.0, 1 / (1 + second), 0.0], quality.ndcg)
    assert [1.0, 1.0, 1.0, 0.0] == quality.hit_rate.tolist()


def test_padding_is_never_a_hit() -> None:
    """Where nothing was recommended there is no hit, whatever ids look like."""
    assert [0.0] == quality_of(np.array([[-1, -1]]), [np.array([-1, 3])]).recall.tolist()


def test_bounds_hold_the_true_mean_as_often_as_they_say() -> None:
    """Of 200 samples of a known mean, the 95 % bounds miss it in at most 12 % and at least once."""
    random = np.random.default_rng(1)
    missed = 0
    for seed in range(200):
        mean, low, high = mean_with_bounds(random.exponential(1.0, 200), seed)
        assert low <= mean <= high
        missed += not low <= 1.0 <= high
    assert 1 <= missed <= 24
