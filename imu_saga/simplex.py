"""Suggesting weights on the simplex: corners, centre, then a Gaussian process with expected improvement."""

from collections.abc import Sequence

import numpy as np

START_RANDOM_STATE = 7919


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


def suggest(tried: Sequence[Sequence[float]], scores: Sequence[float], count: int, size: int, seed: int) -> list[float]:
    """Return the next weights to try.

    Args:
        tried: weights tried so far or under way, each of shape (size,).
        scores: their scores, shape (len(tried),); of those under way a guess.
        count: number of this trial, from 0.
        size: number of weights.
        seed: seed of the acquisition's own search.

    Returns:
        Corner ``count``, then the centre, then the point of largest expected improvement of a Gaussian process with
        a Matern 5/2 kernel (bayesian-optimization).
    """
    if count < size:
        return [float(index == count) for index in range(size)]
    if count == size:
        return [1 / size] * size
    from bayes_opt import BayesianOptimization  # noqa: PLC0415  (slow to import)
    from bayes_opt.acquisition import ExpectedImprovement  # noqa: PLC0415

    names = [f"u{index}" for index in range(size - 1)]
    optimizer = BayesianOptimization(
        f=None,
        pbounds={name: (0.0, 1.0) for name in names},
        acquisition_function=ExpectedImprovement(xi=0.01),
        random_state=START_RANDOM_STATE * seed + count,
        verbose=0,
        allow_duplicate_points=True,
    )
    for weights, score in zip(tried, scores, strict=True):
        optimizer.register(params=dict(zip(names, to_cube(weights), strict=True)), target=score)
    chosen = optimizer.suggest()
    return to_simplex([float(np.clip(chosen[name], 0, 1)) for name in names])


def believed(tried: Sequence[Sequence[float]], scores: Sequence[float]) -> np.ndarray:
    """Return a Gaussian process's belief about every tried point's true score, noise taken out.

    Args:
        tried: weights, shape (trials, k).
        scores: noisy scores, shape (trials,).

    Returns:
        Posterior means, shape (trials,).
    """
    import warnings  # noqa: PLC0415

    from sklearn.exceptions import ConvergenceWarning  # noqa: PLC0415
    from sklearn.gaussian_process import GaussianProcessRegressor  # noqa: PLC0415
    from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel  # noqa: PLC0415

    kernel = ConstantKernel(1.0, (0.1, 10)) * Matern(0.5, (0.1, 5.0), nu=2.5) + WhiteKernel(0.3, (0.01, 1.0))
    process = GaussianProcessRegressor(kernel, normalize_y=True, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a length scale at its bound is an answer here
        process.fit(np.asarray(tried), np.asarray(scores))
    return np.asarray(process.predict(np.asarray(tried)))
