"""What to try next: corners, centre and its repeats first, then the weights of largest expected improvement."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from imu_saga.search.surrogate import Surrogate
from imu_saga.simplex import to_cube, to_simplex

REPEATS = 2  # ours: the centre comes again with other seeds, so that noise between seeds is seen, not guessed
START_RANDOM_STATE = 7919
RANDOM_POINTS, POLISHED_POINTS = 2000, 4  # ours: where the acquisition is looked at, and climbed from


def initial_design(size: int, *, corners: bool = True) -> list[tuple[float, ...]]:
    """Return the weights of the first trials: the corners, then the centre, again and again.

    Args:
        size: number of weights.
        corners: whether single levels are tried; not needed where trials of another search are known.
    """
    single = [tuple(float(index == corner) for index in range(size)) for corner in range(size)] if corners else []
    return [*single, *[(1 / size,) * size] * (1 + REPEATS)]


def suggest(surrogate: Surrogate, seed: int, pending: Sequence[Sequence[float]] = ()) -> tuple[list[float], float]:
    """Return the weights of largest expected improvement over the best belief, and that improvement [macro-F1].

    The acquisition and its maximisation are bayesian-optimization's, on the surrogate's belief. The best so far is the
    highest mean the surrogate believes at any weights tried, not the luckiest score ("plug-in" expected improvement:
    Picheny, Wagner and Ginsbourger 2013, section 3.2).

    Args:
        surrogate: the belief after the finished trials.
        seed: seed of the acquisition's own search.
        pending: weights under way, taken to score what is expected.
    """
    from bayes_opt.acquisition import ExpectedImprovement  # noqa: PLC0415  (slow to import)
    from bayes_opt.target_space import TargetSpace  # noqa: PLC0415

    believed = surrogate.believing(pending)
    tried = believed.weights
    means = believed.predict(tried)[0]
    best = np.array(to_cube(tried[int(means.argmax())]))
    space = TargetSpace(None, {f"u{index}": (0.0, 1.0) for index in range(len(best))}, random_state=seed)
    space.register(best, float(means.max()))  # all that the acquisition asks of the past is its best
    belief: Any = _InCube(believed, len(best))
    acquisition = ExpectedImprovement(xi=0.0)
    chosen = acquisition.suggest(
        belief,
        space,
        n_random=RANDOM_POINTS,
        n_smart=POLISHED_POINTS,
        fit_gp=False,
        random_state=np.random.RandomState(START_RANDOM_STATE + seed),  # noqa: NPY002  (what the package takes)
    )
    weights = to_simplex(np.clip(chosen, 0, 1).tolist())
    mean, deviation = believed.predict([weights])
    return weights, float(np.squeeze(acquisition.base_acq(mean, deviation)))


class _InCube:
    """A surrogate seen from the unit cube, as bayesian-optimization calls its regressor.

    Args:
        surrogate: the belief over the simplex.
        dimensions: of the cube.
    """

    def __init__(self, surrogate: Surrogate, dimensions: int) -> None:
        self.surrogate = surrogate
        self.X_train_ = np.zeros((0, dimensions))  # asked for its width only

    def predict(self, points: np.ndarray, *, return_std: bool = True) -> tuple[np.ndarray, np.ndarray]:
        """Return mean and standard deviation at points of the cube, shape (m, dimensions)."""
        return self.surrogate.predict([to_simplex(point) for point in np.clip(points, 0, 1).tolist()])
