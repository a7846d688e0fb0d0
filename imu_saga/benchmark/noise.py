"""Which differences between rows are within noise: a Bayesian bootstrap over people and label draws (Rubin 1981).

Every person and every label draw (each fold has its own) gets a weight from the standard exponential distribution; a
fold's macro-F1 is that of its people's weighted confusion matrices, and a row's score the mean over folds and draws,
weighted alike. Both rows of a pair get the same weights, so what is hard for both cancels. The 95 % interval of the
difference is read off and put around the difference itself: F1 is not linear in the weights, least of all where people
are the classes, so that the mean of the draws may lie beside it.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from imu_saga.benchmark.records import confusions_of_subjects
from shared_peft.training import Difference

DRAWS = 2000
INTERVAL = (0.025, 0.975)


def differences_from(
    records: Sequence[dict[str, Any]], generator: np.random.Generator, *, reference: str | None = None
) -> list[Difference]:
    """Compare every row with one row at every number of shots.

    Args:
        records: of `run_benchmark`, every row with the same folds, shots and seeds.
        generator: source of the weights.
        reference: the row to compare with; None takes the one with the highest mean at each number of shots.

    Returns:
        One difference a row and number of shots, that row itself left out. Intervals are pair by pair: with many rows
        some will leave 0 out by chance.
    """
    found = []
    rows = tuple(dict.fromkeys(record["row"] for record in records))
    for shots in dict.fromkeys(record["shots"] for record in records):
        here = [record for record in records if record["shots"] == shots]
        means = {row: np.mean([record["macro_f1"] for record in here if record["row"] == row]) for row in rows}
        other = reference or max(means, key=lambda row: means[row])
        draws = resampled_scores(here, rows, generator)
        for row in (row for row in rows if row != other):
            mean, drawn = float(means[row] - means[other]), draws[row] - draws[other]
            low, high = mean + np.quantile(drawn, INTERVAL) - drawn.mean()
            found.append(Difference(row, other, shots, mean, float(low), float(high)))
    return found


def resampled_scores(
    records: Sequence[dict[str, Any]], rows: Sequence[str], generator: np.random.Generator
) -> dict[str, np.ndarray]:
    """Return each row's score under the same DRAWS weightings, shape (DRAWS,)."""
    people = sorted({subject for record in records for subject in record["subjects"]})
    drawn = sorted({(record["fold"], record["seed"]) for record in records})
    of_person = generator.exponential(size=(DRAWS, len(people)))
    of_draw = generator.exponential(size=(DRAWS, len(drawn)))
    found = {}
    for row in rows:
        score, total = np.zeros(DRAWS), np.zeros(DRAWS)
        for record in (record for record in records if record["row"] == row):
            weights = of_person[:, [people.index(subject) for subject in record["subjects"]]]
            f1 = macro_f1(np.einsum("ds,sij->dij", weights, confusions_of_subjects(record)))
            weight = weights.sum(axis=1) * of_draw[:, drawn.index((record["fold"], record["seed"]))]
            score, total = score + weight * f1, total + weight
        found[row] = score / total
    return found


def macro_f1(confusion: np.ndarray) -> np.ndarray:
    """Return the mean F1 over the classes that occur in labels or answers, shape (...), of (..., classes, classes)."""
    right = np.diagonal(confusion, axis1=-2, axis2=-1)
    occurrences = confusion.sum(axis=-1) + confusion.sum(axis=-2)
    occur = occurrences > 0
    return (2 * right / np.where(occur, occurrences, 1.0)).sum(axis=-1) / occur.sum(axis=-1)
