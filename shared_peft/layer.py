"""AdapterLayer: a frozen layer and its named adapters, run as W + dW or as a chain beside the layer."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from shared_peft.errors import AdapterError, MergeError, TargetError
from shared_peft.layer_kind import WeightSlot, kind_of
from shared_peft.method import AdapterMethod, WeightSpec

Path = Literal["auto", "weight", "activation"]


class AdapterLayer(nn.Module):
    """Stands where a layer stood; everything but the adapted weights is still the layer's own.

    Two forwards give the same answer. The weight path runs the layer once with W + dW and is right for every layer; the
    activation path adds a low-rank chain to the layer's output and costs less in training where the layer is dense.
    Dropout on the input of the change needs the activation path.

    Args:
        base_layer: the layer to adapt; whoever attaches an adapter freezes it.
        name: its full name in the model, for error messages.
    """

    def __init__(self, base_layer: nn.Module, name: str) -> None:
        super().__init__()
        kind = kind_of(base_layer)
        if kind is None:
            raise AdapterError(
                name, "must be a layer kind that can be adapted", type(base_layer).__name__, "Exclude it"
            )
        self.kind = kind
        self.slots = kind.slots(base_layer)
        self.base_layer = base_layer
        self.adapters = nn.ModuleDict()
        self.name = name
        self.path: Path = "auto"
        self.active: tuple[str, ...] = ()
        self.enabled = True
        self.merged: tuple[str, ...] = ()
        self._original: dict[str, Tensor] = {}
        self._cache: dict[str, tuple[Any, Tensor]] = {}

    def methods(self, adapter: str) -> Iterator[tuple[WeightSlot, AdapterMethod]]:
        """Iterate over an adapter's (slot, method) pairs in this layer."""
        if adapter in self.adapters:
            for slot in self.slots:
                if slot.key in self.adapters[adapter]:  # type: ignore[operator]
                    yield slot, self.adapters[adapter][slot.key]  # type: ignore[index, misc]

    def check(self, methods: Mapping[str, AdapterMethod]) -> None:
        """Raise TargetError if these methods cannot work on this layer."""
        for method in methods.values():
            if method.dropout and not self.kind.is_plain(self.base_layer):
                got = f"{method.dropout} on {type(self.base_layer).__name__}"
                fix = "Set lora_dropout=0, or exclude the layer"
                raise TargetError(self.name, "dropout needs a layer whose output is linear in its weight", got, fix)

    def add(self, adapter: str, methods: Mapping[str, AdapterMethod]) -> None:
        """Attach one adapter: a method for each slot."""
        device = next(self.base_layer.parameters()).device
        self.adapters[adapter] = nn.ModuleDict(dict(methods)).to(device)

    def remove(self, adapter: str) -> None:
        """Drop an adapter; unknown names are ignored because not every layer has every adapter."""
        if adapter in self.adapters:
            del self.adapters[adapter]
        self.active = tuple(name for name in self.active if name != adapter)

    def frozen_weight(self, slot: WeightSlot) -> Tensor:
        """Return the slot's weight without any adapter, as methods see it."""
        stored = self._original.get(slot.parameter)
        return slot.read(self.base_layer.get_parameter(slot.parameter) if stored is None else stored)

    def delta_weight(self, adapter: str, slot: WeightSlot) -> Tensor:
        """Return one adapter's change of one slot, (out, in / groups, *kernel)."""
        method: AdapterMethod = self.adapters[adapter][slot.key]  # type: ignore[index, assignment]
        return method.delta_weight(self.frozen_weight(slot))

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the layer with its active adapters."""
        active = self._running()
        if not active:
            return self.base_layer(*args, **kwargs)
        if self._takes_activation_path(active, args, kwargs):
            return self._with_chains(active, args[0])
        return self.kind.run(self.base_layer, self._weights(active), args, kwargs)

    def _running(self) -> tuple[str, ...]:
        """Return the adapters that still change the base layer's answer."""
        if not self.enabled or self.merged:
            return ()
        return tuple(name for name in self.active if name in self.adapters)

    def _takes_activation_path(self, active: tuple[str, ...], args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        kind, layer = self.kind, self.base_layer
        if self.path == "weight" or len(args) != 1 or kwargs:
            return False
        if torch.compiler.is_exporting():
            return False  # W + dW folds into a constant, and no choice may depend on a symbolic size
        methods = [method for name in active for _, method in self.methods(name)]
        if self.training and any(method.dropout for method in methods):
            return True
        if not kind.runs_chain(layer) or (self.path == "auto" and not torch.is_grad_enabled()):
            return False
        factors = [method.factors() for method in methods]
        if any(factor is None for factor in factors):
            return False
        return self.path == "activation" or all(
            kind.chain_saves_work(layer, args[0], f) for f in factors if f is not None
        )

    def _with_chains(self, active: tuple[str, ...], x: Tensor) -> Tensor:
        result = self.base_layer(x)
        for name in active:
            for slot, method in self.methods(name):
                dropped = nn.functional.dropout(x, method.dropout, self.training) if x.is_floating_point() else x
                result = result + self._change(slot, method, dropped).to(result.dtype)
        return result

    def _change(self, slot: WeightSlot, method: AdapterMethod, x: Tensor) -> Tensor:
        """Return what one method adds to the layer's output for input ``x``."""
        factors, layer = method.factors(), self.base_layer
        if factors is not None and self.kind.runs_chain(layer):
            keep = not x.is_floating_point() or torch.is_autocast_enabled(x.device.type)
            return self.kind.run_chain(layer, x if keep else x.to(factors.core.dtype), factors)
        weight = self.frozen_weight(slot)
        replaced = {slot.parameter: slot.stored(method.delta_weight(weight)).to(weight.dtype)}
        if isinstance(layer.bias, Tensor):
            replaced["bias"] = torch.zeros_like(layer.bias)
        return torch.func.functional_call(layer, replaced, (x,))

    def _weights(self, active: tuple[str, ...]) -> dict[str, Tensor]:
        return {parameter: self._weight(parameter, active) for parameter in self._parameters_of(active)}

    def _parameters_of(self, active: Iterable[str]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(slot.parameter for name in active for slot, _ in self.methods(name)))

    def _weight(self, parameter: str, active: tuple[str, ...]) -> Tensor:
        """Return W + dW of a stored parameter; kept between calls while nothing it depends on changes."""
        methods = [
            (slot, method) for name in active for slot, method in self.methods(name) if slot.parameter == parameter
        ]
        if torch.is_grad_enabled() or self.training or torch.compiler.is_compiling():
            return self._build(parameter, methods)
        key = tuple(_fingerprint(tensor) for tensor in self._sources(parameter, methods))
        cached = self._cache.get(parameter)
        if None in key or cached is None or cached[0] != key:
            cached = (key, self._build(parameter, methods))
            self._cache[parameter] = cached
        return cached[1]

    def _sources(self, parameter: str, methods: list[tuple[WeightSlot, AdapterMethod]]) -> Iterator[Tensor]:
        yield self.base_layer.get_parameter(parameter)
        for _, method in methods:
            yield from method.parameters()
            yield from method.buffers()

    def _build(self, parameter: str, methods: list[tuple[WeightSlot, AdapterMethod]]) -> Tensor:
        """Return W + dW in the weight's own type, summed in the adapter's."""
        stored = self.base_layer.get_parameter(parameter)
        if len(methods) == 1 and methods[0][0].rows is None:
            slot, method = methods[0]
            change = slot.stored(method.delta_weight(slot.read(stored)))
            return (stored.to(change.dtype) + change).to(stored.dtype)
        parts = {slot.rows: stored[slice(*slot.rows or (None,))] for slot in self.slots if slot.parameter == parameter}
        for slot, method in methods:
            change = slot.stored(method.delta_weight(slot.read(stored)))
            parts[slot.rows] = parts[slot.rows].to(change.dtype) + change
        return torch.cat([part.to(stored.dtype) for part in parts.values()])

    @torch.no_grad()
    def merge(self, adapters: tuple[str, ...], *, safe: bool) -> None:
        """Write W + dW into the layer; the original weights are kept, so that unmerging restores every bit.

        Raises:
            MergeError: already merged, or (with ``safe``) a merged weight would not be finite.
        """
        if self.merged:
            fix = "Call unmerge_adapter first"
            raise MergeError(self.name, "must not be merged already", f"merged {', '.join(self.merged)}", fix)
        present = tuple(name for name in adapters if name in self.adapters)
        merged = {
            parameter: self._build_merged(parameter, present, safe=safe) for parameter in self._parameters_of(present)
        }
        for parameter, weight in merged.items():
            stored = self.base_layer.get_parameter(parameter)
            self._original[parameter] = stored.detach().clone()
            stored.copy_(weight)
        self.merged = present
        self._cache.clear()

    def _build_merged(self, parameter: str, adapters: tuple[str, ...], *, safe: bool) -> Tensor:
        methods = [(slot, m) for name in adapters for slot, m in self.methods(name) if slot.parameter == parameter]
        weight = self._build(parameter, methods)
        if safe and not torch.isfinite(weight).all():
            where = f"{self.name}.{parameter}"
            raise MergeError(where, "the merged weight must be finite", "NaN or inf", "Discard this adapter")
        return weight

    @torch.no_grad()
    def unmerge(self) -> None:
        """Put the original weights back, bit for bit."""
        for parameter, weight in self._original.items():
            self.base_layer.get_parameter(parameter).copy_(weight)
        self._original.clear()
        self._cache.clear()
        self.merged = ()

    def update_and_allocate(self, step: int) -> list[nn.Parameter]:
        """Let the active adapters move on to the phase of ``step``; return the parameters that were restarted."""
        pairs = [pair for name in self.active for pair in self.methods(name)]
        return [p for slot, method in pairs for p in method.update_and_allocate(step, self.frozen_weight(slot))]

    def spec(self, slot: WeightSlot) -> WeightSpec:
        """Return a slot's weight as methods see it."""
        return weight_spec(self.base_layer, slot, self.name)

    def train(self, mode: bool = True) -> "AdapterLayer":  # noqa: FBT001, FBT002  (torch's own signature)
        """Switch between training and evaluation; kept weights are dropped."""
        self._cache.clear()
        return super().train(mode)

    def __getattr__(self, name: str) -> Any:
        """Answer as the layer would; an adapted weight that is read directly is W + dW."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            if "base_layer" not in self.__dict__.get("_modules", {}):
                raise
        active = self._running()
        if active and name in self._parameters_of(active):
            return self._weight(name, active)
        if active and name == "_qkv_same_embed_dim":
            return False  # read by nn.TransformerEncoderLayer before a fused kernel that would pass the adapters by
        return getattr(self.base_layer, name)

    def __getstate__(self) -> dict[str, Any]:
        """Leave kept weights out of pickles and deep copies."""
        return {**self.__dict__, "_cache": {}}


def weight_spec(layer: nn.Module, slot: WeightSlot, name: str) -> WeightSpec:
    """Return the spec of a layer's slot."""
    shape = tuple(slot.read(layer.get_parameter(slot.parameter).detach()).shape)
    where = name if slot.key == "weight" else f"{name}.{slot.key}"
    return WeightSpec(where, shape, slot.groups)


def _fingerprint(tensor: Tensor) -> tuple[int, int] | None:
    """Return what changes when a tensor's values do, or None where torch does not count changes."""
    return None if tensor.is_inference() else (tensor.data_ptr(), tensor._version)
