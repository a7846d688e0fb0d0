"""AdapterLayer: a frozen layer and its named adapters, run as W + dW or as a chain beside the layer."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from shared_peft.changes import Changes, Part
from shared_peft.errors import AdapterError, MergeError, TargetError
from shared_peft.factors import Factors
from shared_peft.layer_kind import WeightSlot, kind_of
from shared_peft.method import AdapterMethod, WeightSpec
from shared_peft.paths import CALLS, Path, PathCosts
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
            by_name = {name: self.changes((name,)) for name in self.adapters}
            return run_rows(self.name, self.base_layer, by_name, args[0], self.sample_names, training=self.training)
        changes = self._running()
        if not changes.parts:
            return self.base_layer(*args, **kwargs)
        path, factors = self._choose(changes, args, kwargs)
        if path == "activation":
            return changes.run_beside(args[0], training=self.training)
        if factors is not None:
            return self.kind.run_factored(self.base_layer, args[0], factors, whole=path == "weight")
        weights = {parameter: self._weight(changes, parameter) for parameter in changes.parameters()}
        return self.kind.run(self.base_layer, weights, args, kwargs)

    def changes(self, adapters: Iterable[str]) -> Changes:
        """Return what some adapters change in this layer; those it does not have are left out."""
        parts = [Part(*pair, self.strengths.get(name, 1.0)) for name in adapters for pair in self.methods(name)]
        return Changes(self.kind, self.base_layer, tuple(parts))

    def _running(self) -> Changes:
        """Return the changes that still move the base layer's answer."""
        return self.changes(self.active if self.enabled and not self.merged else ())

    def _choose(self, changes: Changes, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Path, Factors | None]:
        """Return the path this call takes, and the changes as one chain where `run_factored` is to run them."""
        if (self.training and changes.drops) or not changes.mergeable:
            self._refuse_options(args, kwargs)
            return "activation", None
        if self.path == "weight" or len(args) != 1 or kwargs or torch.compiler.is_exporting():
            return "weight", None  # when exporting, W + dW folds into a constant, whatever the batch size
        chain = self.kind.runs_chain(self.base_layer)
        if not torch.is_grad_enabled():
            return ("activation" if chain and self.path == "activation" else "weight"), None
        fused = not torch.compiler.is_compiling() and self.kind.runs_factored(self.base_layer, args[0])
        factors = changes.factors() if chain or fused else None
        if factors is None:
            return "weight", None
        path = self._path_for(args[0], factors, chain=chain, fused=fused)
        trained = factors.core.requires_grad or factors.out_factor.requires_grad
        tiny = path == "weight" and self.costs is not None and self.costs.weight < CALLS  # autograd's own is as fast
        if not fused or not trained or tiny or path == "activation" or self._base_is_trained():
            return path, None
        return path, factors

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
            got, fix = ", ".join([f"{len(args)} arguments", *kwargs]), "Set lora_dropout=0, or exclude the layer"
            raise TargetError(self.name, must, got, fix)

    def _base_is_trained(self) -> bool:
        return any(self.base_layer.get_parameter(slot.parameter).requires_grad for slot in self.slots)

    def _weight(self, changes: Changes, parameter: str) -> Tensor:
        """Return W + dW of a stored parameter; kept between calls while nothing it depends on changes."""
        if torch.is_grad_enabled() or self.training or torch.compiler.is_compiling():
            return changes.weight(parameter)
        key = tuple(_fingerprint(source) for source in changes.sources(parameter))
        cached = self._cache.get(parameter)
        if None in key or cached is None or cached[0] != key:
            cached = (key, changes.weight(parameter))
            self._cache[parameter] = cached
        return cached[1]

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
        changes = self.changes(present)
        for part in changes.parts:
            if not part.method.mergeable:
                must, fix = "a merged method must be a weight change", "Run and export this adapter unmerged"
                raise MergeError(self.name, must, type(part.method).__name__, fix)
        merged = {parameter: changes.weight(parameter) for parameter in changes.parameters()}
        for parameter, weight in merged.items():
            if safe and not torch.isfinite(weight).all():
                where = f"{self.name}.{parameter}"
                raise MergeError(where, "the merged weight must be finite", "NaN or inf", "Discard this adapter")
        for parameter, weight in merged.items():
            stored = self.base_layer.get_parameter(parameter)
            self._original[parameter] = stored.detach().clone()
            stored.copy_(weight)
        self.merged = present
        self._cache.clear()

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
        if self.sample_names is not None and any(slot.parameter == name for slot in self.slots):
            raise NotRowWiseError(f"{self.name}.{name} is read past the layer")
        changes = self._running()
        if name in changes.parameters():
            return self._weight(changes, name)
        if changes.parts and name == "_qkv_same_embed_dim":
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


def _fingerprint(source: Any) -> Any:
    """Return what changes when a value or a tensor's values do, or None where torch does not count changes."""
    if not isinstance(source, Tensor):
        return source
    return None if source.is_inference() else (source.data_ptr(), source._version)
