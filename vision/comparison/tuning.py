"""The learning rate of a row: the best of a few, by cross-validation inside the shots of a draw of its own."""

from collections.abc import Callable
from dataclasses import dataclass

from vision.comparison.arena import Arena, run_pilot
from vision.comparison.cells import Cells
from vision.comparison.contender import Contender


@dataclass(frozen=True)
class Tuning:
    """How learning rates are chosen.

    Args:
        factors: rates tried, as multiples of the method's default; one is taken as it is.
        validated_folds: how many folds of the cross-validation are held out in turn.
        shots: training images per class of the validation, for all rows; None validates at each row's own.
    """

    factors: tuple[float, ...]
    validated_folds: int
    shots: int | None

    def validated_at(self, shots: int) -> int | None:
        """Return the shots that a row of ``shots`` is tuned at; None where nothing can be held out."""
        at = self.shots or shots
        return at if at > 1 and len(self.factors) > 1 else None

    def pilots(self, shots: int, folds: int) -> int:
        """Return how many trainings choose a rate at ``shots``."""
        at = self.validated_at(shots)
        return 0 if at is None else len(self.factors) * min(self.validated_folds, folds, at)

    def choose(self, arena: Arena, contender: Contender, shots: int, cells: Cells) -> tuple[float, str]:
        """Return the learning rate of a row, and how it was chosen."""
        default = contender.settings.rates()[0]
        rates = tuple(default * factor for factor in self.factors)
        at = self.validated_at(shots)
        if at is None:  # one image a class leaves nothing to hold out
            return min(rates, key=lambda rate: abs(rate - default)), "not validated"

        def score_of(rate: float) -> float:
            tried, folds = contender.at_rate(rate), range(min(self.validated_folds, arena.folds, at))
            found = [
                cells.pilot(
                    f"pilot/{contender.name}/{at}/{rate:.3g}/{fold}",
                    lambda fold=fold: run_pilot(arena, tried, at, fold),
                )
                for fold in folds
            ]
            return sum(cell["score"] * cell["images"] for cell in found) / sum(cell["images"] for cell in found)

        rate = best_rate(rates, score_of)
        edge = ", at the edge of those tried" if rate in (min(rates), max(rates)) else ""
        return rate, f"validated at {at} shots{edge}"


def best_rate(rates: tuple[float, ...], score_of: Callable[[float], float]) -> float:
    """Return the rate with the highest validation score; the smaller one of equals."""
    return max(sorted(rates), key=score_of)
