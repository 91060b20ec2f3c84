"""How near two embeddings are. Scores are such that greater is nearer. Pure."""

from enum import StrEnum


class Metric(StrEnum):
    """The value is what `--metric` and release files say."""

    INNER_PRODUCT = "ip"
    COSINE = "cosine"  # In [-1, 1]; 0 where one of the two is the zero vector.
    L2 = "l2"  # The squared Euclidean distance, negated.
