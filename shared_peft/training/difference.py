"""How far two rows of a comparison are apart, and whether that is noise; where the interval comes from is theirs."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Difference:
    """One row's mean score minus another's, on the same draws of the labels.

    Args:
        row: the one.
        other: the other.
        shots: labelled examples per class, 0 for all.
        mean: the difference of the means; of scores in [0, 1].
        low: lower end of the 95 % interval.
        high: upper end of it.
    """

    row: str
    other: str
    shots: int
    mean: float
    low: float
    high: float

    @property
    def within_noise(self) -> bool:
        """Whether the interval holds 0."""
        return self.low <= 0.0 <= self.high

    @property
    def verdict(self) -> str:
        """How the row stands to the other, in words and points.

        Example:
            >>> Difference("lora", "probe", 20, 0.031, 0.012, 0.05).verdict
            'ahead (+3.1 points, 95 % from +1.2 to +5.0)'
        """
        said = "within noise" if self.within_noise else "ahead" if self.mean > 0 else "behind"
        return f"{said} ({100 * self.mean:+.1f} points, 95 % from {100 * self.low:+.1f} to {100 * self.high:+.1f})"

    def __str__(self) -> str:
        return f"{self.row} against {self.other}: {self.verdict}"
