"""Which way a layer with a low-rank change runs in training, and what each way costs (a model, ours).

Costs are multiplications of one training step (forward and backward) beyond what the frozen layer needs itself, at the
speed of a large matrix product on a CPU. Fitted on two cores: a narrow product reads a wide map, `READ` for each value;
writing a new wide map costs `WRITE` a value, as new memory has to be fetched; convolutions with few output channels run
`NARROW` times slower; and a dozen more small calls cost `CALLS`, whatever the layer's size.
"""

import math
from dataclasses import dataclass
from typing import Literal

from shared_peft.factors import Factors

Path = Literal["weight", "activation", "factored"]
READ, WRITE, NARROW, CALLS = 4, 32, 3, 2e7


@dataclass(frozen=True)
class PathCosts:
    """Extra multiplications of a training step, by path.

    Args:
        weight: run the layer with W + dW, and take the full weight's gradient to the factors.
        activation: run the frozen layer, and the chain of small maps beside it.
        factored: run the layer with W + dW, and take the factors' gradients from narrow maps.
    """

    weight: float
    activation: float = math.inf
    factored: float = math.inf

    @property
    def cheapest(self) -> Path:
        """Name of the cheapest path."""
        costs: dict[Path, float] = {"factored": self.factored, "activation": self.activation, "weight": self.weight}
        return min(costs, key=lambda path: costs[path])

    def __str__(self) -> str:
        """Say which path is the cheapest, beside the others."""
        costs = (("weight", self.weight), ("activation", self.activation), ("factored", self.factored))
        shown = ", ".join(f"{name} {cost / 1e6:.3g}" for name, cost in costs if cost < math.inf)
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
    rank = factors.core.shape[0]
    wide_in, wide_out = before * channels_in, after * out  # values of the input and the output
    build = _build(weight_shape, rank)
    pointwise = math.prod(weight_shape[2:]) == 1
    if factors.in_factor is not None and not pointwise:
        rank_in = factors.in_factor.shape[0]
    else:
        rank_in = rank if pointwise else 0  # a kernel without in-factor reads the input itself
    core = 0 if pointwise else NARROW * after * factors.core.numel()
    to_narrow = wide_out * (rank + READ) + wide_in * (rank_in + READ)
    factored = 2 * to_narrow + (3 if factors.in_factor is not None else 2) * core + 2 * build
    if len(weight_shape) == 2:  # noqa: PLR2004  (a linear layer)
        factored = min(factored, _added(weight_shape, rank, after))
    return PathCosts(
        weight=after * math.prod(weight_shape) + READ * (wide_in + wide_out) + 3 * build,
        activation=3 * (to_narrow + core) + 2 * WRITE * (wide_in + wide_out) + CALLS,
        factored=factored + CALLS,
    )


def builds(weight_shape: tuple[int, ...], rank: int, rows: int) -> bool:
    """Tell whether a linear layer's factored path does better with W + dW than with products added in place."""
    built = 2 * rows * sum(weight_shape) * (rank + READ) + 2 * _build(weight_shape, rank)
    return built <= _added(weight_shape, rank, rows)


def _build(weight_shape: tuple[int, ...], rank: int) -> float:
    """Return the cost of W + dW: (r + READ + WRITE) W."""
    return math.prod(weight_shape) * (rank + READ + WRITE)


def _added(weight_shape: tuple[int, ...], rank: int, rows: int) -> float:
    """Return the cost of products added in place: three, and one more reading of both wide maps."""
    return rows * sum(weight_shape) * (3 * rank + 4 * READ)
