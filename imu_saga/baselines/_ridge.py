"""Ridge regression on class indicators, its penalty chosen by the exact leave-one-out error (Golub et al. 1979)."""

from dataclasses import dataclass

import numpy as np

PENALTIES = tuple(np.logspace(-3, 3, 10).tolist())  # those of Dempster et al. 2021, arXiv:2012.08791


@dataclass(frozen=True, eq=False)
class Ridge:
    """A fitted ridge classifier.

    Args:
        centre: (features,) mean, subtracted first.
        scale: (features,) deviation, divided by then; 1 for constant features.
        weights: (features, classes).
        intercept: (classes,).
        penalty: the one chosen.
    """

    centre: np.ndarray
    scale: np.ndarray
    weights: np.ndarray
    intercept: np.ndarray
    penalty: float

    def scores(self, features: np.ndarray) -> np.ndarray:
        """Return one score a class, about +1 for the right one and -1 for the others, shape (n, classes)."""
        return (features - self.centre) / self.scale @ self.weights + self.intercept


def fit_ridge(features: np.ndarray, codes: np.ndarray, penalties: tuple[float, ...] = PENALTIES) -> Ridge:
    """Fit on standardised features.

    With the eigenvectors V of the scatter X'X = V diag(e) V' and Z = XV, a penalty a gives the hat matrix
    1/n + Z diag(1/(e+a)) Z', and the residual of a row left out is its residual over 1 minus its diagonal entry.
    The scatter is never formed where there are fewer rows than features: then Z comes from XX'.

    Args:
        features: (n, features), finite.
        codes: (n,) int64 in [0, classes), two classes or more.
        penalties: the penalties tried; of equally good ones the first is kept.
    """
    centre, scale = features.mean(axis=0), features.std(axis=0)
    scale = np.where(scale > 1e-9, scale, 1.0)
    x = ((features - centre) / scale).astype(np.float64)
    target = np.where(codes[:, None] == np.arange(codes.max() + 1), 1.0, -1.0)
    intercept = target.mean(axis=0)
    values, rotated, vectors = _principal(x)
    along = rotated.T @ (target - intercept)
    errors = []
    for penalty in penalties:
        residual = target - intercept - rotated @ (along / (values + penalty)[:, None])
        leverage = 1 / len(x) + (rotated**2 / (values + penalty)).sum(axis=1)
        errors.append(float(((residual / np.maximum(1 - leverage, 1e-12)[:, None]) ** 2).mean()))
    penalty = penalties[int(np.argmin(errors))]
    return Ridge(centre, scale, vectors @ (along / (values + penalty)[:, None]), intercept, penalty)


def _principal(x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return eigenvalues e (r,), Z = XV (n, r) and V (features, r) of the scatter, without its null space."""
    wide = x.shape[0] < x.shape[1]
    values, vectors = np.linalg.eigh(x @ x.T if wide else x.T @ x)
    kept = values > max(values[-1], 1e-12) * len(values) * np.finfo(np.float64).eps
    values, vectors = values[kept], vectors[:, kept]
    if not wide:
        return values, x @ vectors, vectors
    roots = np.sqrt(values)
    return values, vectors * roots, x.T @ vectors / roots
