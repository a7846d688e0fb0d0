"""What a search believes: a Gaussian process over the simplex, fed by sources that agree up to an offset and noise.

A score of weights w from source s is y = g(w) + d_s(w) + e: g is what is searched, d_s how the source differs from it
(another fraction of the steps, another data set), e its noise between seeds, one size a source. d is zero for the
target. Covariances add up (Poloczek, Wang and Frazier 2017, "Multi-Information Source Optimization", section 3):

    cov(y_i, y_j) = level^2 + amplitude^2 k(w_i, w_j) + [s_i = s_j] (offset_s^2 + difference_s^2 k(w_i, w_j)
                    + [i = j] noise_s^2)

with k Matern 5/2 of the distance between weights (Rasmussen and Williams 2006, eq. 4.17). Sizes are the most probable
ones given the scores and log-normal priors; level, offset and priors are ours, in units of macro-F1.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

LEVEL_CENTRE, LEVEL_DEVIATION, OFFSET_DEVIATION = 0.5, 1.0, 0.3
AMPLITUDE = (0.05, 1.0)  # median of the prior, and deviation of the logarithm
LENGTH = (1.0, 0.5)
NOISE = (0.03, 0.7)
DIFFERENCE = (0.02, 0.7)
WIDEST = 4.0  # deviations of the logarithm that are looked at
TARGET = 0


def matern(first: np.ndarray, second: np.ndarray, length: float) -> np.ndarray:
    """Return the Matern 5/2 correlation of points, shapes (n, k) and (m, k), as (n, m)."""
    distance = np.sqrt(np.maximum(((first[:, None] - second[None]) ** 2).sum(2), 0.0)) * np.sqrt(5.0) / length
    return (1 + distance + distance**2 / 3) * np.exp(-distance)


@dataclass(frozen=True)
class Scales:
    """Sizes of what scores are made of.

    Args:
        amplitude: of g [macro-F1].
        length: distance on the simplex over which g changes.
        noise: of each source [macro-F1], shape (sources,).
        difference: of each source from the target [macro-F1], shape (sources,); 0 for the target.
    """

    amplitude: float
    length: float
    noise: np.ndarray
    difference: np.ndarray

    @classmethod
    def from_logarithms(cls, logarithms: np.ndarray, sources: int) -> "Scales":
        """Read (amplitude, length, noise of each source, difference of each but the target) from logarithms."""
        values = np.exp(logarithms)
        return cls(float(values[0]), float(values[1]), values[2 : 2 + sources], np.append(0.0, values[2 + sources :]))

    def covariance(
        self, first: np.ndarray, second: np.ndarray, first_source: np.ndarray, second_source: np.ndarray
    ) -> np.ndarray:
        """Return the covariance of noise-free scores: points (n, k) and (m, k) with their sources, as (n, m)."""
        near = matern(first, second, self.length)
        offset = np.where(np.arange(len(self.noise)) == TARGET, 0.0, OFFSET_DEVIATION)
        same = first_source[:, None] == second_source[None]
        own = offset[first_source][:, None] ** 2 + self.difference[first_source][:, None] ** 2 * near
        return LEVEL_DEVIATION**2 + self.amplitude**2 * near + same * own


class Surrogate:
    """The belief about g after scores.

    Args:
        weights: shape (n, k), each row on the simplex.
        scores: shape (n,) [macro-F1].
        sources: which source each score is from, int, shape (n,); 0 is the target. None: all are the target's.
        scales: sizes; None takes the most probable ones.
        size: number of weights k; needed only where there is no score yet.
    """

    def __init__(
        self,
        weights: Sequence[Sequence[float]] | np.ndarray,
        scores: Sequence[float] | np.ndarray,
        sources: Sequence[int] | np.ndarray | None = None,
        scales: Scales | None = None,
        size: int | None = None,
    ) -> None:
        self.scores = np.asarray(scores, float)
        points = np.asarray(weights, float)
        self.weights = points.reshape(len(self.scores), points.shape[-1] if size is None else size)
        self.sources = np.zeros(len(self.scores), int) if sources is None else np.asarray(sources, int)
        self.scales = scales or self._most_probable()
        self._root = np.linalg.cholesky(self._of_scores(self.scales))
        self._pull = self._solve(self.scores - LEVEL_CENTRE)

    @property
    def noise(self) -> float:
        """Standard deviation of the target's scores between seeds [macro-F1]."""
        return float(self.scales.noise[TARGET])

    def joint(self, weights: Sequence[Sequence[float]] | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return mean (m,) and covariance (m, m) of g at weights of shape (m, k), noise left out."""
        points = np.asarray(weights, float)
        target = np.full(len(points), TARGET)
        cross = self._cross(points)
        own = self.scales.covariance(points, points, target, target)
        return LEVEL_CENTRE + cross @ self._pull, own - cross @ self._solve(cross.T)

    def predict(self, weights: Sequence[Sequence[float]] | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return mean and standard deviation of g at weights of shape (m, k), each of shape (m,)."""
        points = np.asarray(weights, float)
        cross = self._cross(points)
        spread = LEVEL_DEVIATION**2 + self.scales.amplitude**2 - (cross * self._solve(cross.T).T).sum(1)
        return LEVEL_CENTRE + cross @ self._pull, np.sqrt(np.maximum(spread, 1e-12))

    def gain(self, weights: Sequence[float], over: Sequence[float]) -> tuple[float, float]:
        """Return mean and standard deviation of g(weights) - g(over)."""
        mean, covariance = self.joint([weights, over])
        difference = np.array([1.0, -1.0])
        return float(difference @ mean), float(np.sqrt(max(difference @ covariance @ difference, 0.0)))

    def believing(self, pending: Sequence[Sequence[float]]) -> "Surrogate":
        """Return the belief as if trials under way had scored what is expected (Ginsbourger et al. 2010, section 4)."""
        if not len(pending):
            return self
        weights = np.concatenate([self.weights, np.asarray(pending, float)])
        scores = np.append(self.scores, self.predict(pending)[0])
        return Surrogate(weights, scores, np.append(self.sources, np.full(len(pending), TARGET)), self.scales)

    def _cross(self, points: np.ndarray) -> np.ndarray:
        return self.scales.covariance(points, self.weights, np.full(len(points), TARGET), self.sources)

    def _of_scores(self, scales: Scales) -> np.ndarray:
        return scales.covariance(self.weights, self.weights, self.sources, self.sources) + np.diag(
            scales.noise[self.sources] ** 2
        )

    def _solve(self, values: np.ndarray) -> np.ndarray:
        from scipy.linalg import cho_solve  # noqa: PLC0415  (slow to import)

        return cho_solve((self._root, True), values) if len(self.scores) else values

    def _most_probable(self) -> Scales:
        """Return the sizes that maximise the probability of the scores times the priors."""
        from scipy.optimize import minimize  # noqa: PLC0415  (slow to import)

        count = int(self.sources.max(initial=TARGET)) + 1
        priors = np.array([AMPLITUDE, LENGTH, *[NOISE] * count, *[DIFFERENCE] * (count - 1)])
        centre, deviation = np.log(priors[:, 0]), priors[:, 1]

        def surprise(logarithms: np.ndarray) -> float:
            root = np.linalg.cholesky(self._of_scores(Scales.from_logarithms(logarithms, count)))
            residual = np.linalg.solve(root, self.scores - LEVEL_CENTRE)
            prior = (((logarithms - centre) / deviation) ** 2).sum()
            return float(0.5 * (residual @ residual + prior) + np.log(np.diag(root)).sum())

        bounds = list(zip(centre - WIDEST * deviation, centre + WIDEST * deviation, strict=True))
        found = minimize(surprise, centre, method="L-BFGS-B", bounds=bounds)
        return Scales.from_logarithms(found.x, count)
