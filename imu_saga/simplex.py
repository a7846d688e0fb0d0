"""The simplex of weights that sum to 1, seen as a cube of one dimension less."""

from collections.abc import Sequence


def to_cube(weights: Sequence[float]) -> list[float]:
    """Map weights that sum to 1 to the unit cube of one dimension less (stick breaking, uniform to uniform).

    Args:
        weights: shape (k,).

    Returns:
        Shape (k - 1,), in [0, 1]; 0 where nothing is left to divide.
    """
    point, left = [], 1.0
    for index, weight in enumerate(weights[:-1]):
        pieces = len(weights) - 1 - index
        share = min(1.0, max(0.0, weight / left)) if left > 1e-12 else 0.0
        point.append(1 - (1 - share) ** pieces)
        left -= weight
    return point


def to_simplex(point: Sequence[float]) -> list[float]:
    """Map a point of the unit cube to weights that sum to 1; the inverse of `to_cube`."""
    weights, left = [], 1.0
    for index, value in enumerate(point):
        share = 1 - (1 - value) ** (1 / (len(point) - index))
        weights.append(left * share)
        left -= weights[-1]
    return [*weights, max(0.0, left)]
