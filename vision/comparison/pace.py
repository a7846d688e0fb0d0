"""How long a row's epochs take beside a rival's: the same images and draws, trained right after each other."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vision.comparison.contender import Contender


@dataclass(frozen=True)
class Pace:
    """A row's time per epoch as a multiple of its rival's, pair by pair.

    Args:
        row: the row.
        rival: the rival.
        ratio: median over the pairs; below 1 the row is faster.
        smallest: of the ratios.
        largest: of the ratios.
        pairs: how many.
    """

    row: str
    rival: str
    ratio: float
    smallest: float
    largest: float
    pairs: int

    def __str__(self) -> str:
        spread = f"from {self.smallest:.2f} to {self.largest:.2f} in {self.pairs} pairs"
        return f"time per epoch, {self.row} / {self.rival}: {self.ratio:.2f} x (median; {spread})"


def paces(rows: Sequence[Contender], cells: Sequence[Mapping[str, Any]]) -> list[Pace]:
    """Return the pace of every row that a rival stands beside.

    Args:
        rows: the rows.
        cells: results of their trainings, with method, shots, seed and seconds_per_epoch [s].
    """
    taken = {(cell["method"], cell["shots"], cell["seed"]): cell["seconds_per_epoch"] for cell in cells}
    found = []
    for rival in (row for row in rows if row.tuned_as):
        ratios = [
            taken[rival.tuned_as, shots, seed] / max(seconds, 1e-9)
            for (method, shots, seed), seconds in taken.items()
            if method == rival.name
        ]
        middle = statistics.median(ratios)
        found.append(Pace(rival.tuned_as, rival.name, middle, min(ratios), max(ratios), len(ratios)))
    return found
