"""What a method trains: the whole model, its head alone, its biases (BitFit), or an adapter beside its head.

BitFit: Ben Zaken, Ravfogel and Goldberg 2021, arXiv:2106.10199; here the shifts of norms count as biases, as there.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from shared_peft.errors import ConfigError, UnknownNameError
from vision.backbones.family import Backbone

if TYPE_CHECKING:
    from shared_peft.method import AdapterConfig

FULL, PROBE, BITFIT = PLAIN_METHODS = ("full", "probe", "bitfit")
AfterStep = Callable[[int, torch.optim.Optimizer], None]


@dataclass(frozen=True)
class Trainee:
    """A model with its trainable parameters chosen.

    Args:
        model: what to call and train; a PeftModel where ``peft`` is set.
        body: trainable parameters outside the head.
        head: the head's parameters.
        peft: the model again, typed as a PeftModel, where the method is an adapter.
        train_statistics: let BatchNorm and dropout work as in training; off keeps the whole model in eval mode but
            for the adapter's own dropout.
    """

    model: nn.Module
    body: list[nn.Parameter]
    head: list[nn.Parameter]
    peft: Any = None
    train_statistics: bool = False

    @property
    def inner(self) -> nn.Module:
        """The model itself, without the wrapper of an adapter."""
        return self.model if self.peft is None else self.peft.get_base_model()

    @property
    def after_step(self) -> AfterStep | None:
        """What the adapter must be told after every optimiser step; None without an adapter."""
        return None if self.peft is None else self.peft.update_and_allocate

    def enter_training(self) -> None:
        """Put every module in the mode this method trains in; called before every step."""
        self.model.train()
        if not self.train_statistics:
            for module in self.model.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):  # noqa: SLF001  (the only common base)
                    module.eval()


def method_names() -> tuple[str, ...]:
    """Return every method: those without an adapter, and the registered adapters."""
    from shared_peft import METHODS  # noqa: PLC0415

    return (*PLAIN_METHODS, *METHODS.names())


def check_method(method: str) -> None:
    """Raise UnknownNameError, listing the methods, unless ``method`` is one."""
    if method not in method_names():
        must = f"method must be one of {', '.join(method_names())}"
        raise UnknownNameError("--method", must, repr(method), "Correct the name")


def adapt(
    backbone: Backbone,
    method: str,
    fields: Mapping[str, Any],
    *,
    steps: int = 1_000,
    budget: int | None = None,
    seed: int = 0,
) -> Trainee:
    """Choose what is trained.

    Args:
        backbone: the model; it is changed in place.
        method: one of `method_names`.
        fields: fields of the adapter's config; `target_modules` is "all" unless given, and the head is excluded.
        steps: optimiser steps it will be trained for; phases of the adapter follow them.
        budget: largest number of adapter parameters (the head not counted); sets the rank.
        seed: of the adapter's initial weights.

    Returns:
        The model, ready to train.

    Raises:
        UnknownNameError: no such method.
        ConfigError: a field the method does not have, or a budget where there is nothing to choose.
        TargetError: no layer matches, or one that cannot be adapted.
        RankError: a rank that a weight cannot have, or a budget that cannot be kept.
    """
    check_method(method)
    if method in PLAIN_METHODS:
        if fields or budget is not None:
            got = ", ".join(fields) or f"budget {budget}"
            fix = "Choose an adapter method, or drop them"
            raise ConfigError(f"method {method!r}", "takes no adapter fields and no budget", got, fix)
        return _without_adapter(backbone, method)
    from shared_peft import get_peft_model  # noqa: PLC0415

    config = adapter_config(backbone, method, fields, steps=steps, budget=budget)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        peft = get_peft_model(backbone.model, config)
    return Trainee(peft, *split_head(peft, backbone.head), peft=peft)


def adapter_config(
    backbone: Backbone, method: str, fields: Mapping[str, Any], *, steps: int = 1_000, budget: int | None = None
) -> "AdapterConfig":
    """Return an adapter's configuration for one training of a backbone, whose head is trained in full.

    Args, Raises: as `adapt`, of an adapter method.
    """
    from shared_peft.run_config import config_for_run  # noqa: PLC0415

    with_head = {name: [*backbone.head, *(fields.get(name) or ())] for name in ("exclude_modules", "modules_to_save")}
    return config_for_run(backbone.model, method, {**fields, **with_head}, steps=steps, budget=budget)


def _without_adapter(backbone: Backbone, method: str) -> Trainee:
    for name, parameter in backbone.model.named_parameters():
        parameter.requires_grad_(method == FULL or (method == BITFIT and name.endswith("bias")))
    for name in backbone.head:
        backbone.model.get_submodule(name).requires_grad_(True)
    return Trainee(backbone.model, *split_head(backbone.model, backbone.head), train_statistics=method == FULL)


def split_head(model: nn.Module, head: tuple[str, ...]) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Return the trainable parameters outside and inside the head, whatever wraps them."""
    groups: tuple[list[nn.Parameter], list[nn.Parameter]] = [], []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            groups[any(f".{part}." in f".{name}" for part in head)].append(parameter)
    return groups
