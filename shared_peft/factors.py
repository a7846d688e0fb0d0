"""Factors: a weight change as a chain of small maps, which a layer can run beside itself or multiply out."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True)
class Factors:
    """A weight change as a chain of small maps: out_factor . core . in_factor.

    Args:
        core: shape (rank_out, rank_in, *kernel).
        out_factor: shape (out, rank_out), the scale included.
        in_factor: shape (rank_in, in / groups), or None where the core takes the layer's input itself.
    """

    core: Tensor
    out_factor: Tensor
    in_factor: Tensor | None = None

    def compose(self) -> Tensor:
        """Multiply the chain out: shape (out, in / groups, *kernel), contracting the smaller channel mode first."""
        core = self.without_in_factor().core
        change = self.out_factor @ core.reshape(core.shape[0], -1)
        return change.reshape(self.out_factor.shape[0], *core.shape[1:])

    def without_in_factor(self) -> "Factors":
        """Multiply the in-factor into the core."""
        if self.in_factor is None:
            return self
        rank_out, rank_in, *kernel = self.core.shape
        if not kernel:
            return Factors(self.core @ self.in_factor, self.out_factor)
        taps_last = self.in_factor.mT @ self.core.reshape(rank_out, rank_in, -1)  # (rank_out, in, taps)
        return Factors(taps_last.view(rank_out, -1, *kernel), self.out_factor)

    def scaled(self, weight: float) -> "Factors":
        """Multiply the change by a number."""
        return self if weight == 1 else replace(self, out_factor=self.out_factor * weight)

    def in_rows(self, start: int, size: int) -> "Factors":
        """Place the change in rows ``start`` onwards of a weight with ``size`` rows, 0 elsewhere."""
        after = size - start - self.out_factor.shape[0]
        return replace(self, out_factor=functional.pad(self.out_factor, (0, 0, start, after)))


def added(parts: Sequence[Factors]) -> Factors:
    """Return the sum of changes of one shape as a single chain, whose rank is the sum of theirs."""
    if len(parts) == 1:
        return parts[0]
    plain = [part.without_in_factor() for part in parts]
    return Factors(torch.cat([part.core for part in plain]), torch.cat([part.out_factor for part in plain], dim=1))
