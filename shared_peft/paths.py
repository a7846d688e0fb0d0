"""Which way a layer with a low-rank change runs in training, and what each way costs (a model, ours).

Costs are multiplications of one training step (forward and backward) beyond what the frozen layer needs itself. Moving
a value through memory counts as `MOVE` multiplications: narrow products are bound by it. Legend of the formulas:
W values in the weight, k kernel size, P positions (batch x output positions), r ranks, channels = in + out.
"""

import math
from dataclasses import dataclass
from typing import Literal

from shared_peft.factors import Factors

Path = Literal["weight", "activation", "factored"]
MOVE = 8


@dataclass(frozen=True)
class PathCosts:
    """Extra multiplications of a training step, by path.

    Args:
        weight: run the layer with W + dW, and take the full weight's gradient to the factors.
        activation: run the frozen layer, and the chain of small maps beside it.
        factored: run the layer with W + dW, and take the factors' gradients from narrow maps.
    """

    weight: float
    activation: float
    factored: float

    @property
    def cheapest(self) -> Path:
        """Name of the cheapest path."""
        costs: dict[Path, float] = {"factored": self.factored, "activation": self.activation, "weight": self.weight}
        return min(costs, key=lambda path: costs[path])

    def __str__(self) -> str:
        """Say which path is the cheapest, beside the others."""
        costs = (("weight", self.weight), ("activation", self.activation), ("factored", self.factored))
        shown = ", ".join(f"{name} {cost / 1e6:.3g}" for name, cost in costs)
        return f"{self.cheapest}: cheapest of {shown} (extra million multiplications a step)"


def path_costs(weight_shape: tuple[int, ...], factors: Factors, before: int, after: int) -> PathCosts:
    """Return the costs of a dense layer with one weight.

    Args:
        weight_shape: (out, in, *kernel).
        factors: the change.
        before: positions of the input, batch included.
        after: positions of the output, batch included.
    """
    out, channels_in = weight_shape[:2]
    weight = math.prod(weight_shape)
    rank_out, rank_in = factors.core.shape[:2]
    build = factors.core.shape[0] * weight + 3 * MOVE * weight  # (r + 3 MOVE) W
    narrow = after * factors.core.numel() + MOVE * after * rank_out  # the core's own maps
    wide_in = 0 if factors.in_factor is None else before * channels_in * (rank_in + MOVE)
    wide_in += MOVE * before * channels_in if factors.in_factor is None else 0
    wide_out = after * out * (rank_out + MOVE)
    return PathCosts(
        weight=after * weight + MOVE * (before * channels_in + after * out) + 2 * build,
        activation=3 * (wide_in + wide_out + narrow) + MOVE * (before * channels_in + 2 * after * out),
        factored=2 * (wide_in + wide_out) + 3 * narrow + 2 * build,
    )
