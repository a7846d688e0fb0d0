"""Low-rank changes whose factors are inputs of the exported graph; `AdapterLayer` runs them like any adapter (ours)."""

import math
from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from shared_peft import AdapterLayer
from shared_peft.factors import Factors
from shared_peft.method import AdapterMethod, LayerMaps

ADAPTER = "input"  # name of the one adapter in every layer of the graph
CORE, OUT, IN = "core", "out_factor", "in_factor"
_CONVOLVE: dict[int, Callable[[Tensor, Tensor], Tensor]] = {
    3: functional.conv1d,
    4: functional.conv2d,
    5: functional.conv3d,
}
NARROWEST = 4  # ours: input channels
_LINEAR = 2  # dimensions of a linear layer's weight


class _InputFactors(AdapterMethod):
    """Factors that `torch.func.functional_call` exchanges for the graph's inputs.

    Args:
        factors: an example, in the shapes' number of dimensions.
    """

    core: nn.Parameter
    out_factor: nn.Parameter

    def __init__(self, factors: Factors) -> None:
        super().__init__()
        for name, tensor in self.stored(factors).items():
            self.register_parameter(name, nn.Parameter(tensor, requires_grad=False))

    @staticmethod
    @abstractmethod
    def stored(factors: Factors) -> dict[str, Tensor]:
        """Return the tensors as the graph takes them."""


class InputChain(_InputFactors):
    """A chain of small maps beside the layer: W + dW in the graph would cost the weight's own size (measured)."""

    mergeable = False

    @staticmethod
    def stored(factors: Factors) -> dict[str, Tensor]:
        """Return matrices ready to multiply from the right, or kernels: the graph then turns and reshapes nothing."""
        if factors.core.dim() == _LINEAR:
            return {CORE: factors.core.mT, OUT: factors.out_factor.mT}
        taps = (1,) * (factors.core.dim() - _LINEAR)
        found = {CORE: factors.core, OUT: factors.out_factor.reshape(*factors.out_factor.shape, *taps)}
        if factors.in_factor is not None:
            found[IN] = factors.in_factor.reshape(*factors.in_factor.shape, *taps)
        return found

    def delta_weight(self, weight: Tensor) -> Tensor:
        """Not a weight change."""
        raise AssertionError("a chain runs beside its layer")

    def respond(self, x: Tensor, output: Tensor, maps: LayerMaps) -> Tensor:
        """Return in-factor, core and out-factor after each other."""
        if self.core.dim() == _LINEAR:
            return x @ self.core @ self.out_factor
        convolve = _CONVOLVE[self.core.dim()]
        in_factor = getattr(self, IN, None)  # not every chain has one
        narrow = x if in_factor is None else convolve(x, in_factor)
        return convolve(maps.narrow(narrow, self.core), self.out_factor)


class InputChange(_InputFactors):
    """W + dW inside the graph, for layers that no chain can run beside: grouped convolutions and fused attention."""

    @staticmethod
    def stored(factors: Factors) -> dict[str, Tensor]:
        """Return core and out-factor as they are."""
        return {CORE: factors.core, OUT: factors.out_factor}

    def delta_weight(self, weight: Tensor) -> Tensor:
        """Multiply the chain out."""
        return Factors(self.core, self.out_factor).compose()


@dataclass(frozen=True)
class Slot:
    """One adapted weight of the graph.

    Args:
        layer: the layer's name.
        key: the weight's slot in it.
        chain: whether its change runs as a chain beside the layer.
    """

    layer: str
    key: str
    chain: bool

    @property
    def method(self) -> type[_InputFactors]:
        """What runs the change."""
        return InputChain if self.chain else InputChange

    def stored(self, factors: Factors) -> dict[str, Tensor]:
        """Return a change as the graph takes it, by the inputs' names."""
        return {f"{self.layer}.{self.key}.{part}": t for part, t in self.method.stored(factors).items()}

    def path(self, name: str) -> str:
        """Return the parameter of the model that an input takes the place of."""
        return f"{self.layer}.adapters.{ADAPTER}.{self.key}.{name.rpartition('.')[2]}"


def runs_chain(layer: AdapterLayer) -> bool:
    """Tell whether a chain runs beside this layer.

    Not beside a kernel on an input as narrow as the chain: its core would gather as much as the layer itself does
    (1.10 times the merged model's time for resnet18 without that chain, 1.18 times with it).
    """
    base = layer.base_layer
    weight = base.get_parameter(layer.kind.slots(base)[0].parameter)
    stem = math.prod(weight.shape[2:]) > 1 and weight.shape[1] <= NARROWEST
    return layer.kind.runs_chain(base) and not stem


def changes_of(layer: AdapterLayer) -> dict[Slot, Factors] | None:
    """Return the active adapters' changes of one layer, by slot, or None where a method has no factors.

    A chain runs beside the whole layer, so the parts of a fused weight become rows of one chain there.
    """
    changes = layer.changes(layer.active)
    if not changes.parts:
        return {}
    if not changes.mergeable:
        return None
    if runs_chain(layer):
        whole, key = changes.factors(), layer.kind.slots(layer.base_layer)[0].key
        return None if whole is None else {Slot(layer.name, key, chain=True): whole}
    found: dict[Slot, Factors] = {}
    for part in changes.parts:
        factors, slot = part.method.factors(), Slot(layer.name, part.slot.key, chain=False)
        if factors is None or slot in found:
            return None
        found[slot] = factors.scaled(part.strength)
    return found


def with_inputs(module: nn.Module, name: str, slots: Mapping[Slot, Factors]) -> AdapterLayer:
    """Return a frozen layer with example factors in some of its slots."""
    layer = AdapterLayer(module, name)
    layer.add(ADAPTER, {slot.key: slot.method(factors) for slot, factors in slots.items()})
    layer.active = (ADAPTER,)
    return layer.eval()


def example_like(factors: Factors, ranks: tuple[int, int]) -> Factors:
    """Return zeros of other ranks (of the core's output, of its input)."""
    out_rank, in_rank = ranks
    out_factor = torch.zeros(factors.out_factor.shape[0], out_rank)
    if factors.in_factor is None:
        return Factors(torch.zeros(out_rank, *factors.core.shape[1:]), out_factor)
    core = torch.zeros(out_rank, in_rank, *factors.core.shape[2:])
    return Factors(core, out_factor, torch.zeros(in_rank, factors.in_factor.shape[1]))
