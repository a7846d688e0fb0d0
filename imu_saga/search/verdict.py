"""What a search found, said with its uncertainty: the weights believed best, and their gain over equal weights."""

from dataclasses import dataclass
from math import erf, sqrt
from typing import Any

INTERVAL_Z = 1.959964  # of a 95 % interval
NO_GAIN = "no better than equal weights within noise"


@dataclass(frozen=True)
class Gain:
    """Expected gain of the weights found over equal weights [macro-F1], as the surrogate believes it.

    Args:
        mean: expected gain.
        deviation: its standard deviation; noise between seeds is left out, since it is not the weights' doing.
    """

    mean: float
    deviation: float

    @property
    def low(self) -> float:
        """Lower end of the 95 % interval."""
        return self.mean - INTERVAL_Z * self.deviation

    @property
    def high(self) -> float:
        """Upper end of the 95 % interval."""
        return self.mean + INTERVAL_Z * self.deviation

    @property
    def probability(self) -> float:
        """Probability that there is a gain at all."""
        return 0.5 * (1 + erf(self.mean / (self.deviation * sqrt(2)))) if self.deviation else float(self.mean > 0)

    @property
    def certain(self) -> bool:
        """Whether the whole interval is above 0."""
        return self.low > 0

    def as_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        ends = {"low": self.low, "high": self.high, "probability": self.probability}
        return {"mean": self.mean, "deviation": self.deviation, **ends, "beyond_noise": self.certain}

    def __str__(self) -> str:
        said = f"expected gain over equal weights {self.mean:+.3f} macro-F1 (95 %: {self.low:+.3f} to {self.high:+.3f})"
        return said if self.certain else f"{said}: {NO_GAIN}"
