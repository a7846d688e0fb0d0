"""AdapterLayer: a frozen layer and its named adapters, run as W + dW or as a chain beside the layer."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from shared_peft.errors import AdapterError, MergeError, TargetError
from shared_peft.factors import Factors, added
from shared_peft.layer_kind import LayerMapsOf, WeightSlot, kind_of
from shared_peft.method import AdapterMethod, WeightSpec
from shared_peft.paths import Path, PathCosts
from shared_peft.sample_rows import NotRowWiseError, run_rows

ChosenPath = Path | Literal["auto"]


class AdapterLayer(nn.Module):
    """Stands where a layer stood; everything but the adapted weights is still the layer's own.

    Three paths give the same answer. The weight path runs the layer once with W + dW and is right for every layer; the
    activation path adds a low-rank chain to the layer's output; the factored path runs the layer once with W + dW and
    takes the factors' gradients from narrow maps. In training the cheapest is taken (see `paths`), else the weight path
    with W + dW kept between calls. Dropout on the input of the change, and methods that cannot be merged, need the
    activation path.

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
        self._every_slot = tuple(dict.fromkeys((*kind.slots(base_layer), *kind.parts(base_layer))))
        self.base_layer = base_layer
        self.adapters = nn.ModuleDict()
        self.name = name
        self.path: ChosenPath = "auto"
        self.costs: PathCosts | None = None  # of the last training step, where there was a choice
        self.active: tuple[str, ...] = ()
        self.strengths: dict[str, float] = {}  # factor on an active adapter's change, 1 where it is missing
        self.sample_names: tuple[str, ...] | None = None  # adapter of each sample, set for one forward
        self.enabled = True
        self.merged: tuple[str, ...] = ()
        self._original: dict[str, Tensor] = {}
        self._cache: dict[str, tuple[Any, Tensor]] = {}

    @property
    def slots(self) -> tuple[WeightSlot, ...]:
        """The weights that some adapter changes; of a fused one perhaps both the whole and its parts."""
        used = {key for methods in self.adapters.values() for key in methods}  # type: ignore[attr-defined]
        return tuple(slot for slot in self._every_slot if slot.key in used)

    def methods(self, adapter: str) -> Iterator[tuple[WeightSlot, AdapterMethod]]:
        """Iterate over an adapter's (slot, method) pairs in this layer."""
        if adapter in self.adapters:
            for slot in self._every_slot:
                if slot.key in self.adapters[adapter]:  # type: ignore[operator]
                    yield slot, self.adapters[adapter][slot.key]  # type: ignore[index, misc]

    def check(self, methods: Mapping[str, AdapterMethod]) -> None:
        """Raise TargetError if these methods cannot work on this layer."""
        for method in methods.values():
            if not method.mergeable and not self.kind.runs_chain(self.base_layer):
                must = "a method that cannot be merged needs a dense layer with torch's own forward"
                raise TargetError(self.name, must, type(self.base_layer).__name__, "Exclude the layer")
            if method.dropout and not self.kind.is_plain(self.base_layer):
                got = f"{method.dropout} on {type(self.base_layer).__name__}"
                fix = "Set lora_dropout=0, or exclude the layer"
                raise TargetError(self.name, "dropout needs a layer whose output is linear in its weight", got, fix)

    @torch.no_grad()
    def start(self, methods: Mapping[str, AdapterMethod]) -> None:
        """Let new methods, not yet attached, take start values from the frozen weights."""
        for slot in self._every_slot:
            if slot.key in methods:
                methods[slot.key].start(self.frozen_weight(slot))

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
        """Return one adapter's change of one slot at full strength, (out, in / groups, *kernel)."""
        method: AdapterMethod = self.adapters[adapter][slot.key]  # type: ignore[index, assignment]
        return method.delta_weight(self.frozen_weight(slot))

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the layer with its active adapters."""
        if self.sample_names is not None and self.enabled and not self.merged:
            return run_rows(self, args[0], self.sample_names)
        active = self._running()
        if not active:
            return self.base_layer(*args, **kwargs)
        path, factors = self._choose(active, args, kwargs)
        if path == "activation":
            return self._with_changes(active, args[0])
        if factors is not None:
            return self.kind.run_factored(self.base_layer, args[0], factors, whole=path == "weight")
        return self.kind.run(self.base_layer, self._weights(active), args, kwargs)

    def _running(self) -> tuple[str, ...]:
        """Return the adapters that still change the base layer's answer."""
        if not self.enabled or self.merged:
            return ()
        return tuple(name for name in self.active if name in self.adapters)

    def _choose(
        self, active: tuple[str, ...], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[Path, Factors | None]:
        """Return the path this call takes, and the changes as one chain where `run_factored` is to run them."""
        methods = [method for name in active for _, method in self.methods(name)]
        dropped = self.training and any(method.dropout for method in methods)
        if dropped or not all(method.mergeable for method in methods):
            self._refuse_options(args, kwargs)
            return "activation", None
        if self.path == "weight" or len(args) != 1 or kwargs or torch.compiler.is_exporting():
            return "weight", None  # when exporting, W + dW folds into a constant, whatever the batch size
        chain = self.kind.runs_chain(self.base_layer)
        if not torch.is_grad_enabled():
            return ("activation" if chain and self.path == "activation" else "weight"), None
        fused = not torch.compiler.is_compiling() and self.kind.runs_factored(self.base_layer, args[0])
        factors = self._factors(active) if chain or fused else None
        if factors is None:
            return "weight", None
        path = self._path_for(args[0], factors, chain=chain, fused=fused)
        trained = factors.core.requires_grad or factors.out_factor.requires_grad
        return path, factors if fused and trained and path != "activation" and not self._base_is_trained() else None

    def _path_for(self, x: Tensor, factors: Factors, *, chain: bool, fused: bool) -> Path:
        """Return the wanted path, or the one with the least work in training."""
        costs = self.costs = self.kind.training_costs(self.base_layer, x, factors)
        path = self.path
        if path == "auto":
            path = "activation" if costs is None else costs.cheapest
        if path == "activation":
            return "activation" if chain else "weight"
        return path if fused else "weight"

    def _refuse_options(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if len(args) != 1 or kwargs:
            must = "with dropout, or a method that cannot be merged, it must be called with its input alone"
            got = ", ".join([f"{len(args)} arguments", *kwargs])
            raise TargetError(
                self.name, must, got, "Set lora_dropout=0 and use a mergeable method, or exclude the layer"
            )

    def _base_is_trained(self) -> bool:
        return any(self.base_layer.get_parameter(slot.parameter).requires_grad for slot in self.slots)

    def _factors(self, active: tuple[str, ...]) -> Factors | None:
        """Return all active changes of a layer with one parameter as one chain, or None."""
        parts = [self._factors_of(name, slot, method) for name in active for slot, method in self.methods(name)]
        return None if any(part is None for part in parts) else added([part for part in parts if part is not None])

    def _factors_of(self, adapter: str, slot: WeightSlot, method: AdapterMethod) -> Factors | None:
        factors = method.factors() if method.mergeable else None
        if factors is None:
            return None
        factors = factors.scaled(self.strengths.get(adapter, 1.0))
        if slot.rows is None:
            return factors
        return factors.in_rows(slot.rows[0], self.base_layer.get_parameter(slot.parameter).shape[0])

    def _with_changes(self, active: tuple[str, ...], x: Tensor) -> Tensor:
        """Run the frozen layer, and add to its output what each method makes of the input."""
        output = self.base_layer(x)
        together = self._factors(active) if self._chains_add_up(active) else None
        if together is not None:
            return output + self.kind.run_chain(self.base_layer, self._as(x, together.core), together).to(output.dtype)
        result = output
        for name in active:
            for slot, method in self.methods(name):
                dropped = nn.functional.dropout(x, method.dropout, self.training) if x.is_floating_point() else x
                result = result + self._change(name, slot, method, dropped, output).to(output.dtype)
        return result

    def _chains_add_up(self, active: tuple[str, ...]) -> bool:
        """Tell whether the active changes can run as one chain: none of them drops its own part of the input."""
        methods = (method for name in active for _, method in self.methods(name))
        return self.kind.runs_chain(self.base_layer) and not any(m.dropout and self.training for m in methods)

    def _change(self, adapter: str, slot: WeightSlot, method: AdapterMethod, x: Tensor, output: Tensor) -> Tensor:
        """Return what one method adds to the layer's output for input ``x``."""
        layer = self.base_layer
        if not method.mergeable:
            values = next(method.parameters())
            added_output = method.respond(self._as(x, values), self._as(output, values), LayerMapsOf(self.kind, layer))
            return added_output * self.strengths.get(adapter, 1.0)
        factors = self._factors_of(adapter, slot, method)
        if factors is not None and self.kind.runs_chain(layer):
            return self.kind.run_chain(layer, self._as(x, factors.core), factors)
        stored = layer.get_parameter(slot.parameter)
        changed = self._build(slot.parameter, [(adapter, slot, method)], torch.zeros_like(stored))
        replaced = {slot.parameter: changed}
        bias = getattr(layer, "bias", None)
        if isinstance(bias, Tensor):
            replaced["bias"] = torch.zeros_like(bias)
        return torch.func.functional_call(layer, replaced, (x,))

    @staticmethod
    def _as(x: Tensor, values: Tensor) -> Tensor:
        """Return a floating input in the adapter's type, unless autocast decides."""
        keep = not x.is_floating_point() or torch.is_autocast_enabled(x.device.type)
        return x if keep else x.to(values.dtype)

    def _weights(self, active: tuple[str, ...]) -> dict[str, Tensor]:
        return {parameter: self._weight(parameter, active) for parameter in self._parameters_of(active)}

    def _parameters_of(self, active: Iterable[str]) -> tuple[str, ...]:
        pairs = (pair for name in active for pair in self.methods(name))
        return tuple(dict.fromkeys(slot.parameter for slot, method in pairs if method.mergeable))

    def _weight(self, parameter: str, active: tuple[str, ...]) -> Tensor:
        """Return W + dW of a stored parameter; kept between calls while nothing it depends on changes."""
        parts = self._parts(parameter, active)
        if torch.is_grad_enabled() or self.training or torch.compiler.is_compiling():
            return self._build(parameter, parts)
        key = (*self._fingerprints(parameter, parts), *(self.strengths.get(name, 1.0) for name in active))
        cached = self._cache.get(parameter)
        if None in key or cached is None or cached[0] != key:
            cached = (key, self._build(parameter, parts))
            self._cache[parameter] = cached
        return cached[1]

    def _parts(self, parameter: str, adapters: Iterable[str]) -> list[tuple[str, WeightSlot, AdapterMethod]]:
        """Return (adapter, slot, method) of every change of one stored parameter."""
        pairs = ((name, slot, method) for name in adapters for slot, method in self.methods(name))
        return [
            (name, slot, method) for name, slot, method in pairs if slot.parameter == parameter and method.mergeable
        ]

    def _fingerprints(self, parameter: str, parts: list[tuple[str, WeightSlot, AdapterMethod]]) -> Iterator[Any]:
        yield _fingerprint(self.base_layer.get_parameter(parameter))
        for _, _, method in parts:
            for tensor in (*method.parameters(), *method.buffers()):
                yield _fingerprint(tensor)

    def _build(
        self, parameter: str, parts: list[tuple[str, WeightSlot, AdapterMethod]], onto: Tensor | None = None
    ) -> Tensor:
        """Return W + dW, or ``onto`` + dW, in the weight's own type, summed in the wider of both."""
        stored = self.base_layer.get_parameter(parameter)
        result = stored if onto is None else onto
        for adapter, slot, method in parts:
            change, strength = slot.stored(method.delta_weight(slot.read(stored))), self.strengths.get(adapter, 1.0)
            change = change if strength == 1 else change * strength
            if slot.rows is not None:
                after = stored.shape[0] - slot.rows[1]
                change = nn.functional.pad(change, (*(0, 0) * (change.dim() - 1), slot.rows[0], after))
            result = result + change
        return result.to(stored.dtype)

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
        for name in present:
            if not all(method.mergeable for _, method in self.methods(name)):
                must, fix = "a merged method must be a weight change", "Run and export this adapter unmerged"
                raise MergeError(self.name, must, type(next(self.methods(name))[1]).__name__, fix)
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
        weight = self._build(parameter, self._parts(parameter, adapters))
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
        if self.sample_names is not None and any(slot.parameter == name for slot in self.slots):
            raise NotRowWiseError(f"{self.name}.{name} is read past the layer")
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
