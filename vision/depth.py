"""Where in a model's depth a parameter lies, and learning rates that fall towards its input.

Layer-wise learning-rate decay (Howard and Ruder 2018, arXiv:1801.06146, Section 3.2; for ViTs Bao et al. 2021,
arXiv:2106.08254): a layer k below the head learns at decay^k times the head's rate.
"""

from collections.abc import Iterator
from typing import Any, cast

from torch import nn

from shared_peft.errors import ConfigError
from shared_peft.layer import AdapterLayer
from shared_peft.saved_module import SavedModule
from vision.torchvision_ops import declare_missing_operators

_CHAINS = (nn.Sequential, nn.ModuleList)


def chained_blocks(model: nn.Module, prefix: str = "") -> Iterator[tuple[str, nn.Module]]:
    """Iterate over (name, block) of the blocks a model is a chain of: what its stages hold, in order.

    A stage is an nn.Sequential or nn.ModuleList of modules that have parts of their own; a stage of stages counts as
    its inner ones. What lies beside the stages (a stem, a head) is not among the blocks.

    Args:
        model: the model.
        prefix: name of ``model``, with a dot at the end, inside a larger one.
    """
    for name, child in model.named_children():
        path = f"{prefix}{name}"
        if _is_stage(child) or not isinstance(model, _CHAINS):
            yield from chained_blocks(child, f"{path}.")
        elif _is_stage(model):
            yield path, child


def _is_stage(module: nn.Module) -> bool:
    return isinstance(module, _CHAINS) and any(True for part in module for _ in _unwrapped(part).children())


def _unwrapped(module: nn.Module) -> nn.Module:
    """Return the layer that an adapter sits beside, or the module that is trained in its place."""
    if isinstance(module, AdapterLayer):
        return module.base_layer
    return module.original_module if isinstance(module, SavedModule) else module


def depths(model: nn.Module) -> dict[str, int]:
    """Return the depth of every parameter: 0 in the stem, one more a block, the largest in the head.

    timm's own grouping is used where a model has one. Elsewhere what comes before the first block is the stem, what
    comes after the last one is the head, and what lies between two blocks counts with the second; a model without
    blocks counts by its direct children.

    Args:
        model: a model, or one with adapters in its layers: they lie where their layer does.
    """
    matcher: Any = getattr(model, "group_matcher", None)
    if matcher is not None:
        declare_missing_operators()
        from timm.models import group_parameters  # noqa: PLC0415  (slow to import)

        return cast(dict[str, int], group_parameters(model, matcher(coarse=False), reverse=True))
    blocks = [name for name, _ in chained_blocks(model)]
    blocks = blocks or [name for name, child in model.named_children() if any(True for _ in child.parameters())][1:-1]
    found: dict[str, int] = {}
    done = 0
    for name, _ in model.named_parameters():
        inside = next((index for index, block in enumerate(blocks) if name.startswith(f"{block}.")), None)
        if inside is not None:
            done = inside + 1
        found[name] = done if inside is not None or done == 0 else done + 1
    return found


def decayed_groups(model: nn.Module, parameters: list[nn.Parameter], rate: float, decay: float) -> list[dict[str, Any]]:
    """Return parameter groups for an optimiser, learning more slowly towards the input.

    Args:
        model: the model the parameters lie in, without a wrapper around it.
        parameters: the trained ones outside the head.
        rate: learning rate at the depth of the head.
        decay: factor from one depth to the one below, in (0, 1]; 1 makes one group.

    Returns:
        Groups with "params" and "lr", the deepest first.

    Raises:
        ConfigError: a decay outside (0, 1].
    """
    if not 0 < decay <= 1:
        raise ConfigError("--layer-decay", "must be in (0, 1]", decay, "Use 0.65 to 0.9, or 1 for none")
    if decay == 1:
        return [{"params": parameters, "lr": rate}] if parameters else []
    found = depths(model)
    wanted = {id(parameter) for parameter in parameters}
    top = max(found.values())
    groups: dict[int, list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if id(parameter) in wanted:
            groups.setdefault(found[name], []).append(parameter)
    return [{"params": groups[depth], "lr": rate * decay ** (top - depth)} for depth in sorted(groups, reverse=True)]
