"""PeftModel: a model with named adapters that otherwise stays the model it was (names as in Hugging Face peft)."""

import contextlib
import sys
from collections.abc import Hashable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from shared_peft import combination, hotswap, merging, per_sample, report, storage
from shared_peft.allocation import allocate
from shared_peft.errors import AdapterError
from shared_peft.inject import adapter_layers, attach, detach, saved_modules, training_penalty
from shared_peft.layer import AdapterLayer
from shared_peft.method import AdapterConfig
from shared_peft.saved_module import SavedModule
from shared_peft.status import LayerStatus, layer_status


class PeftModel(nn.Module):
    """A model and its adapters. Attributes it does not have itself are the model's.

    Frozen batch norms stay in evaluation mode, so that their running statistics cannot drift: the adapter file would
    not hold them. A batch norm named in ``modules_to_save`` is trained and stored.

    Args:
        model: the model to adapt, changed in place.
        config: the first adapter's configuration.
        adapter_name: its name.
        generator: source of the random initial values.
    """

    def __init__(
        self,
        model: nn.Module,
        config: AdapterConfig,
        adapter_name: str = "default",
        *,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        attach(model, config, adapter_name, generator=generator)
        self.base_model = model
        self.peft_config: dict[str, AdapterConfig] = {adapter_name: config}
        self.set_adapter(adapter_name)
        self.train(model.training)

    def forward(self, *args: Any, adapter_names: Sequence[str] | None = None, **kwargs: Any) -> Any:
        """Run the model with its active adapters, or with one for each sample.

        Args:
            args: the model's arguments.
            adapter_names: adapter of each sample, "__base__" for none; see `per_sample.run`. Only those that
                `set_adapter` made trainable get gradients.
            kwargs: the model's keyword arguments.
        """
        if adapter_names is not None:
            return per_sample.run(self.base_model, adapter_names, args, kwargs, self._row_wise)
        return self.base_model(*args, **kwargs)

    def get_base_model(self) -> nn.Module:
        """Return the model the adapters sit in."""
        return self.base_model

    # adapters by name

    def add_adapter(
        self, adapter_name: str, config: AdapterConfig, *, generator: torch.Generator | None = None
    ) -> None:
        """Attach another adapter, inactive until `set_adapter`.

        Raises:
            AdapterError, TargetError, RankError: see `attach`; the model is then unchanged.
        """
        self._refuse_merged("add_adapter")
        attach(self.base_model, config, adapter_name, generator=generator)
        self._welcome(adapter_name, config)

    @property
    def active_adapters(self) -> list[str]:
        """Names of the adapters in use, whose changes add up."""
        return list(self._active)

    def set_adapter(
        self,
        adapter_name: str | Sequence[str],
        *,
        weights: Sequence[float] | None = None,
        inference_mode: bool = False,
    ) -> None:
        """Use these adapters and train them; all others are frozen.

        Args:
            adapter_name: one name or several, whose changes add up; of a module trained in full the last copy counts.
            weights: factor on each adapter's change, 1 by default. They belong to the run, not to the adapters:
                merging applies them, `save_pretrained` does not.
            inference_mode: train none of them.

        Raises:
            AdapterError: an unknown name, weights that do not fit, or the model is merged.
        """
        names = (adapter_name,) if isinstance(adapter_name, str) else tuple(adapter_name)
        for name in names:
            self._known(name)
        self._refuse_merged("set_adapter")
        combination.activate(self.base_model, names, weights, inference_mode=inference_mode)
        self._active, self._weights, self._inference_mode = names, weights, inference_mode
        self._row_wise: dict[Hashable, frozenset[str]] = {}  # what `per_sample` found out about these adapters

    def add_weighted_adapter(
        self,
        adapters: Sequence[str],
        weights: Sequence[float],
        adapter_name: str,
        combination_type: combination.Combination = "svd",
        svd_rank: int | None = None,
    ) -> None:
        """Add a plain LoRA that holds a weighted sum of adapters, inactive until `set_adapter`; see `combined`.

        Raises:
            AdapterError: an unknown or taken name, weights that do not fit, or methods that cannot be combined so.
        """
        self._refuse_merged("add_weighted_adapter")
        for name in adapters:
            self._known(name)
        named = combination.weighted(adapters, weights)
        config, tensors = combination.combined(self.base_model, self.peft_config, named, combination_type, svd_rank)
        attach(self.base_model, config, adapter_name, start=False)
        storage.fill(self.base_model, tensors, adapter_name, "add_weighted_adapter")
        self._welcome(adapter_name, config)

    def delete_adapter(self, adapter_name: str) -> None:
        """Remove an adapter; if it was the only active one, the first of the others becomes active.

        Raises:
            AdapterError: an unknown name, the last adapter, or the model is merged.
        """
        self._known(adapter_name)
        self._refuse_merged("delete_adapter")
        if len(self.peft_config) == 1:
            fix = "Use unload() to get the plain model back"
            raise AdapterError("delete_adapter", "must leave at least one adapter", repr(adapter_name), fix)
        for holder in (*self._layers(), *self._saved()):
            holder.remove(adapter_name)
        del self.peft_config[adapter_name]
        self._activate_again([name for name in self._active if name != adapter_name] or list(self.peft_config)[:1])

    @contextlib.contextmanager
    def disable_adapter(self) -> Iterator[None]:
        """Answer as the base model does within the block."""
        with merging.disabled(self.base_model):
            yield

    # merging

    def merge_adapter(self, adapter_names: Sequence[str] | None = None, *, safe_merge: bool = False) -> None:
        """Write the changes into the base weights, which are kept aside to be restored bit for bit.

        Args:
            adapter_names: adapters to merge; by default the active ones.
            safe_merge: refuse weights that are not finite.

        Raises:
            MergeError: merged already, or not finite with ``safe_merge``; nothing is then merged.
        """
        names = tuple(self._active if adapter_names is None else adapter_names)
        for name in names:
            self._known(name)
        merging.merge(self.base_model, names, safe=safe_merge)

    def unmerge_adapter(self) -> None:
        """Put the original base weights back, bit for bit; does nothing where nothing is merged."""
        merging.unmerge(self.base_model)

    def merge_and_unload(self, *, safe_merge: bool = False) -> nn.Module:
        """Return the plain model with the active adapters' changes in its weights; this PeftModel is used up."""
        if not any(layer.merged for layer in self._layers()):
            self.merge_adapter(safe_merge=safe_merge)
        return detach(self.base_model)

    def unload(self) -> nn.Module:
        """Return the plain model without the adapters; modules trained in full keep their trained copy."""
        self.unmerge_adapter()
        return detach(self.base_model)

    # training

    def update_and_allocate(self, step: int, optimizer: torch.optim.Optimizer | None = None) -> None:
        """Let methods whose training has phases move on; call it after every optimiser step, before zero_grad.

        Args:
            step: optimiser steps done so far.
            optimizer: the optimiser, whose state is dropped for parameters that a phase change restarts.
        """
        restarted = [parameter for layer in self._layers() for parameter in layer.update_and_allocate(step)]
        for name in self._active:
            allocate([method for layer in self._layers() for _, method in layer.methods(name)], step)
        if optimizer is not None:
            for parameter in restarted:
                optimizer.state.pop(parameter, None)

    def penalty(self) -> torch.Tensor | None:
        """Return what the active adapters add to the training loss, a scalar, or None."""
        return training_penalty(self.base_model)

    def train(self, mode: bool = True) -> "PeftModel":  # noqa: FBT001, FBT002  (torch's own signature)
        """Switch between training and evaluation; frozen norms that keep running statistics stay in evaluation."""
        super().train(mode)
        for module in self.base_model.modules():
            if _keeps_statistics(module) and _is_frozen(module):
                module.eval()
        return self

    def get_nb_trainable_parameters(self) -> tuple[int, int]:
        """Return the numbers of trainable and of all parameters."""
        sizes = [(parameter.numel(), parameter.requires_grad) for parameter in self.parameters()]
        return sum(size for size, trained in sizes if trained), sum(size for size, _ in sizes)

    def print_trainable_parameters(self) -> None:
        """Print how many parameters are trained, in Hugging Face peft's words."""
        trained, total = self.get_nb_trainable_parameters()
        share = 100 * trained / total
        sys.stdout.write(f"trainable params: {trained:,d} || all params: {total:,d} || trainable%: {share:.4f}\n")

    def get_layer_status(self) -> list[LayerStatus]:
        """Return one row for each adapted layer: adapters, parameters, path, merged or not."""
        return [layer_status(name, layer) for name, layer in adapter_layers(self.base_model)]

    def get_layer_report(self, *example_inputs: Any, **example_kwargs: Any) -> report.Report:
        """Return each adapted layer's parameters and multiply-accumulates on an example; print it for a table."""
        return report.layer_report(self.base_model, example_inputs, example_kwargs)

    # storage

    def save_pretrained(self, directory: str | Path, adapter_name: str | None = None, *, stock: bool = False) -> None:
        """Write adapter_model.safetensors and adapter_config.json of one adapter (by default the first active one).

        Args:
            directory: where to write; made if it is missing.
            adapter_name: the adapter to write, at full strength whatever weight `set_adapter` gave it.
            stock: write a LoRA adapter that stock Hugging Face peft loads with the same answers.

        Raises:
            AdapterError: an unknown name; with ``stock`` a layer that peft runs wrongly or a method that is no LoRA.
        """
        name = adapter_name or self._active[0]
        self._known(name)
        storage.save(self.base_model, self.peft_config[name], name, Path(directory), as_stock=stock)

    def load_adapter(self, directory: str | Path, adapter_name: str) -> None:
        """Attach an adapter from a folder, inactive until `set_adapter`.

        Raises:
            CheckpointError: files that are missing, damaged, or do not fit; the model is then unchanged.
        """
        self._refuse_merged("load_adapter")
        self._welcome(adapter_name, storage.load(self.base_model, Path(directory), adapter_name))

    def hotswap_adapter(self, directory: str | Path, adapter_name: str) -> None:
        """Put the values of a stored adapter into an attached one, in place: a compiled model is not compiled again.

        Choosing other adapters with `set_adapter` does compile again, once for each choice.

        Raises:
            AdapterError: an unknown name, or the model is merged.
            CheckpointError: files that are damaged, or an adapter that does not fit (see `swap`); nothing is changed.
        """
        self._known(adapter_name)
        self._refuse_merged("hotswap_adapter")
        hotswap.swap(self.base_model, self.peft_config[adapter_name], adapter_name, Path(directory))

    @classmethod
    def from_pretrained(cls, model: nn.Module, directory: str | Path, adapter_name: str = "default") -> "PeftModel":
        """Return ``model`` with the adapter stored in a folder, active; the model is changed in place.

        Raises:
            CheckpointError: files that are missing, damaged, or do not fit; the model is then unchanged.
        """
        peft_model = cls.__new__(cls)
        nn.Module.__init__(peft_model)
        config = storage.load(model, Path(directory), adapter_name)
        peft_model.base_model = model
        peft_model.peft_config = {adapter_name: config}
        peft_model.set_adapter(adapter_name)
        return peft_model.train(model.training)

    # inside

    def _welcome(self, adapter_name: str, config: AdapterConfig) -> None:
        """Know a newly attached adapter, with the active ones and the modes as they were."""
        self.peft_config[adapter_name] = config
        self._activate_again(self._active)
        self.train(self.training)

    def _activate_again(self, names: Sequence[str]) -> None:
        """Activate these adapters with the weights and the mode they had."""
        before = dict(zip(self._active, self._weights or (1.0,) * len(self._active), strict=True))
        weights = [before.get(name, 1.0) for name in names] if self._weights else None
        self.set_adapter(names, weights=weights, inference_mode=self._inference_mode)

    def _layers(self) -> list[AdapterLayer]:
        return [layer for _, layer in adapter_layers(self.base_model)]

    def _saved(self) -> list[SavedModule]:
        return [module for _, module in saved_modules(self.base_model)]

    def _known(self, name: str) -> None:
        if name not in self.peft_config:
            must = f"must be one of {', '.join(self.peft_config)}"
            raise AdapterError("adapter_name", must, repr(name), "Add or load it first")

    def _refuse_merged(self, action: str) -> None:
        if any(layer.merged for layer in self._layers()):
            raise AdapterError(action, "needs an unmerged model", "merged weights", "Call unmerge_adapter first")

    def __getattr__(self, name: str) -> Any:
        """Answer as the model would."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            if "base_model" not in self.__dict__.get("_modules", {}):
                raise
        return getattr(self.base_model, name)


def get_peft_model(
    model: nn.Module,
    config: AdapterConfig,
    adapter_name: str = "default",
    *,
    generator: torch.Generator | None = None,
) -> PeftModel:
    """Return ``model`` with a new adapter, active and trainable; everything else is frozen.

    Args:
        model: any torch module; changed in place.
        config: LoraConfig, FloraConfig, LoraTsdConfig, ...
        adapter_name: name of the adapter.
        generator: source of the random initial values; None uses torch's global one.

    Returns:
        A PeftModel that answers exactly as ``model`` did until it is trained.

    Raises:
        TargetError: no layer matches, or one cannot be adapted.
        RankError: a rank that a layer's weight cannot have.

    Example:
        >>> import torch
        >>> from shared_peft import LoraConfig, get_peft_model
        >>> model = get_peft_model(torch.nn.Sequential(torch.nn.Linear(8, 4)), LoraConfig(r=2))
        >>> model.print_trainable_parameters()
        trainable params: 24 || all params: 60 || trainable%: 40.0000
    """
    return PeftModel(model, config, adapter_name, generator=generator)


def inject_adapter_in_model(
    config: AdapterConfig, model: nn.Module, adapter_name: str = "default", *, generator: torch.Generator | None = None
) -> nn.Module:
    """Attach and activate an adapter, returning the model itself instead of a PeftModel."""
    PeftModel(model, config, adapter_name, generator=generator)
    return model


def _keeps_statistics(module: nn.Module) -> bool:
    """Tell whether training would move a norm's buffers: batch norms, and others with running statistics."""
    running = any(name.startswith("running_") for name, _ in module.named_buffers(recurse=False))
    return running or isinstance(module, nn.modules.batchnorm._BatchNorm)


def _is_frozen(module: nn.Module) -> bool:
    return not any(parameter.requires_grad for parameter in module.parameters())
