"""Which differences between rows are within noise: over draws of the shots and over test images, both at once.

Two rows are compared on the same draws and the same images, so what is hard for both cancels. The mean difference over
S draws has two sources of noise: which images were drawn to train on, whose variance is that of the S differences
divided by S; and which images were tested on, whose variance is that of the mean difference over a bootstrap of the N
images, the same images for both rows (Efron and Tibshirani 1993, Sections 6.2 and 8.3), and of one more image told
apart, 1 / N^2, without which a few images would pass for certainty (Agresti and Min 2005, doi:10.1002/sim.1781: half a
count to every cell of the pairs). The sum counts what depends on both twice, which errs on the side of "within noise".
The 95 % interval is Student's, with the degrees of freedom of the sum (Satterthwaite 1946, doi:10.2307/3002019): S - 1
where the draws rule, N - 1 where the images do. A percentile interval of 2 or 5 draws would be far too narrow.
"""

import itertools
import math
from collections.abc import Callable, Mapping

import numpy as np
import torch

from shared_peft.training import Difference

Weighted = Callable[[torch.Tensor], torch.Tensor]  # weights of the images (draws, images) -> scores (draws,)
RESAMPLES = 1_000
CONFIDENCE = 0.95
_AT_ONCE = 10_000_000  # weights held at a time


def paired_differences(
    rows: Mapping[str, list[Weighted]], images: int, shots: int, generator: np.random.Generator
) -> list[Difference]:
    """Compare all rows with each other.

    Args:
        rows: for each row, one function per draw of the shots: the score of its answers under weights of the images.
        images: number of test images.
        shots: training images per class, to be told.
        generator: source of the resampled images.

    Returns:
        One difference for every two rows, in the order of ``rows``. Intervals are pair by pair: of many, some leave 0
        out by chance.
    """
    even = torch.ones(1, images, dtype=torch.float64)
    plain = {name: np.array([float(score(even)) for score in scores]) for name, scores in rows.items()}
    resampled = _resampled(rows, images, generator)
    found = []
    for row, other in itertools.combinations(rows, 2):
        by_draw = plain[row] - plain[other]
        half = half_width(by_draw, resampled[row] - resampled[other], images)
        mean = float(by_draw.mean())
        found.append(Difference(row, other, shots, mean, mean - half, mean + half))
    return found


def half_width(by_draw: np.ndarray, resampled: np.ndarray, images: int) -> float:
    """Return half the length of the 95 % interval of a mean difference.

    Args:
        by_draw: the difference for every draw of the shots, shape (draws,); of one draw the noise is not known, and
            only that of the images counts.
        resampled: the mean difference under resampled images, shape (resamples,).
        images: number of test images.
    """
    from scipy.stats import t  # noqa: PLC0415  (slow to import)

    of_draws = float(by_draw.var(ddof=1)) / len(by_draw) if len(by_draw) > 1 else 0.0
    of_images = float(resampled.var(ddof=1)) + 1 / images**2
    variance = of_draws + of_images
    freedom = variance**2 / (of_draws**2 / max(len(by_draw) - 1, 1) + of_images**2 / max(images - 1, 1))
    return float(t.ppf((1 + CONFIDENCE) / 2, freedom)) * math.sqrt(variance)


def _resampled(
    rows: Mapping[str, list[Weighted]], images: int, generator: np.random.Generator
) -> dict[str, np.ndarray]:
    """Return each row's mean score over its draws, under the same resampled images for all, shape (RESAMPLES,)."""
    parts: dict[str, list[np.ndarray]] = {name: [] for name in rows}
    step = max(1, min(RESAMPLES, _AT_ONCE // images))
    for done in range(0, RESAMPLES, step):
        counts = generator.multinomial(images, np.full(images, 1 / images), size=min(step, RESAMPLES - done))
        weights = torch.from_numpy(counts).double()
        for name, scores in rows.items():
            parts[name].append(torch.stack([score(weights) for score in scores]).mean(dim=0).numpy())
    return {name: np.concatenate(found) for name, found in parts.items()}
