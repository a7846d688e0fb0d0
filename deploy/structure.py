"""Are two networks the same but for the values of their weights? Then one program is both's (ours)."""

from typing import Any

from torch import Tensor, nn

_HELD = ("_parameters", "_buffers", "_modules", "training")


def same_structure(one: nn.Module, other: nn.Module) -> bool:
    """Tell whether two models run the same code on the same settings: a program traced from one is the other's.

    Modules must have the same classes, names and attributes all the way down, no hooks, and tensors of the same names,
    shapes and types. Where attributes cannot be compared the answer is no.

    Example:
        >>> same_structure(nn.Linear(2, 3), nn.Linear(2, 3)), same_structure(nn.ReLU(), nn.ReLU(inplace=True))
        (True, False)
    """
    return (
        type(one) is type(other)
        and _tensors(one) == _tensors(other)
        and _attributes_equal(one, other)
        and list(one._modules) == list(other._modules)
        and all(_same_child(mine, other._modules[name]) for name, mine in one._modules.items())
    )


def _same_child(one: nn.Module | None, other: nn.Module | None) -> bool:
    if one is None or other is None:
        return one is other
    return same_structure(one, other)


def _tensors(module: nn.Module) -> dict[str, Any]:
    """Return type and shape of a module's own parameters and buffers."""
    held: dict[str, Tensor | None] = {**module._parameters, **module._buffers}
    return {name: None if tensor is None else (tuple(tensor.shape), tensor.dtype) for name, tensor in held.items()}


def _attributes_equal(one: nn.Module, other: nn.Module) -> bool:
    mine, theirs = ({k: v for k, v in vars(module).items() if k not in _HELD} for module in (one, other))
    try:
        hooked = any(mine[name] for name in mine if name.endswith("_hooks"))
        return not hooked and bool(mine == theirs)
    except (RuntimeError, ValueError, TypeError):  # of values that cannot be compared, such as tensors
        return False
