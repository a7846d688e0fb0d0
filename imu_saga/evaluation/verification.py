"""User verification with unseen impostors: error rates over thresholds, EER, FRR at a fixed FAR (ISO/IEC 19795-1)."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from shared_peft.errors import DataError

FAR_LEVELS = (0.01, 0.001)
CURVE_POINTS = 101


@dataclass(frozen=True, eq=False)
class ErrorRates:
    """Errors at every threshold that makes a difference; a claim is accepted when its score is the threshold or more.

    Args:
        thresholds: (t,) ascending; every distinct score, then infinity.
        far: (t,) false accept rate: accepted part of the impostors' claims, falling from 1 to 0.
        frr: (t,) false reject rate: rejected part of the genuine claims, rising from 0 to 1.
    """

    thresholds: np.ndarray
    far: np.ndarray
    frr: np.ndarray


@dataclass(frozen=True)
class Verification:
    """Summary of a verification.

    Args:
        eer: equal error rate, in [0, 1].
        threshold: the score at which both errors are nearest to equal.
        frr_at_far: false reject rate where the false accept rate is at most this, by level ("0.01").
        genuine: number of genuine claims.
        impostor: number of impostors' claims; a level below 1 / impostor means no false accept at all.
        curve: up to 101 points of thresholds, far and frr, evenly spread over the thresholds' ranks.
    """

    eer: float
    threshold: float
    frr_at_far: dict[str, float]
    genuine: int
    impostor: int
    curve: dict[str, list[float]]


def error_rates(genuine: np.ndarray, impostor: np.ndarray) -> ErrorRates:
    """Return both errors at every threshold.

    Args:
        genuine: (g,) scores of true claims, higher is more alike.
        impostor: (i,) scores of false claims.

    Raises:
        DataError: a side is empty, or a score is not finite.
    """
    for name, scores in (("genuine", genuine), ("impostor", impostor)):
        if not len(scores) or not np.isfinite(scores).all():
            got = "none" if not len(scores) else "NaN or infinity"
            raise DataError(
                f"verification, {name} scores", "must be finite numbers, at least one", got, "Check the model"
            )
    thresholds = np.append(np.unique(np.concatenate([genuine, impostor]).astype(np.float64)), np.inf)
    far = 1 - np.searchsorted(np.sort(impostor), thresholds, side="left") / len(impostor)
    frr = np.searchsorted(np.sort(genuine), thresholds, side="left") / len(genuine)
    return ErrorRates(thresholds, far, frr)


def equal_error_rate(rates: ErrorRates) -> float:
    """Return the error where the straight line between the two thresholds around it has FAR = FRR.

    Example:
        >>> equal_error_rate(error_rates(np.array([0.8, 0.9, 0.3]), np.array([0.1, 0.2, 0.5])))
        0.3333333333333333
    """
    after = int(np.argmax(rates.frr >= rates.far))  # at least 1: at the lowest threshold all are accepted
    before = after - 1
    gap_before, gap_after = rates.far[before] - rates.frr[before], rates.frr[after] - rates.far[after]
    part = gap_before / (gap_before + gap_after)
    return float(rates.far[before] + part * (rates.far[after] - rates.far[before]))


def verify(genuine: np.ndarray, impostor: np.ndarray) -> Verification:
    """Summarise scores of true and false claims.

    Args:
        genuine: (g,) scores of true claims, higher is more alike.
        impostor: (i,) scores of false claims.

    Raises:
        DataError: a side is empty, or a score is not finite.
    """
    rates = error_rates(genuine, impostor)
    nearest = int(np.argmin(np.abs(rates.far - rates.frr)[:-1]))
    chosen = np.unique(np.linspace(0, len(rates.thresholds) - 2, CURVE_POINTS).round().astype(int))
    shown = {"threshold": rates.thresholds, "far": rates.far, "frr": rates.frr}
    return Verification(
        eer=equal_error_rate(rates),
        threshold=float(rates.thresholds[nearest]),
        frr_at_far={str(level): float(rates.frr[rates.far <= level].min()) for level in FAR_LEVELS},
        genuine=len(genuine),
        impostor=len(impostor),
        curve={name: values[chosen].tolist() for name, values in shown.items()},
    )


def template_claims(enrolled: np.ndarray, users: np.ndarray, features: np.ndarray, n_users: int) -> np.ndarray:
    """Score embeddings against each user's mean training embedding by cosine.

    Args:
        enrolled: (e, d) embeddings of the training windows.
        users: (e,) int64, whose they are; every user occurs.
        features: (n, d) embeddings of the windows that make claims.
        n_users: number of users.

    Returns:
        (n, n_users) scores in [-1, 1].
    """
    directions = _directions(enrolled)
    templates = np.stack([directions[users == user].mean(axis=0) for user in range(n_users)])
    return _directions(features) @ _directions(templates).T


def open_set(claims: np.ndarray, users: np.ndarray, impostor_claims: np.ndarray) -> dict[str, Verification]:
    """Verify enrolled people against impostors never seen, and against each other.

    Args:
        claims: (n, n_users) score of every test window for every identity.
        users: (n,) int64, who it truly is.
        impostor_claims: (m, n_users) scores of the unseen people's windows, each claiming every identity.

    Returns:
        "unseen": against the unseen people; "enrolled": against the other enrolled people.
    """
    true = users[:, None] == np.arange(claims.shape[1])
    return {
        "unseen": verify(claims[true], impostor_claims.ravel()),
        "enrolled": verify(claims[true], claims[~true]),
    }


def verification_picture(scored: dict[str, Any], figure: Any) -> None:
    """Draw FAR and FRR over the threshold for every way of scoring on an empty matplotlib figure.

    Args:
        scored: Verification as plain JSON values, by way of scoring.
        figure: an empty figure.
    """
    axes = figure.subplots(1, len(scored), squeeze=False)[0]
    for axis, (name, values) in zip(axes, scored.items(), strict=True):
        curve = values["curve"]
        axis.plot(curve["threshold"], curve["far"], label="false accepts (FAR)")
        axis.plot(curve["threshold"], curve["frr"], label="false rejects (FRR)")
        axis.axhline(values["eer"], color="grey", linewidth=0.8, linestyle=":")
        axis.axvline(values["threshold"], color="grey", linewidth=0.8, linestyle=":")
        axis.set(title=f"{name}\nEER {values['eer']:.1%}", xlabel="threshold on the score", ylim=(0, 1))
    axes[0].set_ylabel("part of the claims")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False)


def _directions(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
