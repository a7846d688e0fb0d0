"""Networks that a file describes: built only once they are known to be no larger than the file of their weights (ours).

A few words of JSON can ask for a layer of a billion rows, or for a billion layers.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.module import (
    register_module_buffer_registration_hook,
    register_module_parameter_registration_hook,
)

from shared_peft.errors import CheckpointError, SagaPeftError
from shared_peft.weights import READ_ERRORS, check_fits, load_checked

M = TypeVar("M", bound=nn.Module)
_FIX = "Fetch the folder again, or train again"
_MORE_VALUES, _MORE_TENSORS = 1 << 26, 1000  # of heads that are replaced, and of tables that no file holds


def load_described(build: Callable[[], M], tensors: Mapping[str, Tensor], where: Path) -> M:
    """Return a network filled from a file.

    Args:
        build: makes the network that the file's folder describes.
        tensors: the file's content, by the network's own names.
        where: the file, for the error.

    Raises:
        CheckpointError: names or shapes that do not fit, or a description of nothing that can be built.
    """
    try:
        check_fits(_planned(build, tensors, where), tensors, where)
        with _no_larger_than(tensors, where):
            model = build()
    except SagaPeftError:
        raise
    except READ_ERRORS as error:
        got = f"{type(error).__name__}: {error}".splitlines()[0][:200]
        raise CheckpointError(where.parent, "must describe a network that can be built", got, _FIX) from error
    load_checked(model, tensors, where)
    return model


def _planned(build: Callable[[], M], tensors: Mapping[str, Tensor], where: Path) -> M:
    """Return the network on the meta device, where it takes no memory; a few networks compute while they are built."""
    with contextlib.suppress(NotImplementedError, RuntimeError), torch.device("meta"), _no_larger_than(tensors, where):
        return build()
    with _no_larger_than(tensors, where):
        return build()


@contextlib.contextmanager
def _no_larger_than(tensors: Mapping[str, Tensor], where: Path) -> Iterator[None]:
    """Refuse, inside the block, the parameter or buffer with which modules become far larger than a file's tensors."""
    values = 2 * sum(tensor.numel() for tensor in tensors.values()) + _MORE_VALUES
    count = 4 * len(tensors) + _MORE_TENSORS

    def check(module: nn.Module, name: str, tensor: Tensor | None) -> None:
        nonlocal values, count
        values, count = values - (0 if tensor is None else tensor.numel()), count - 1
        if min(values, count) < 0:
            got = f"{type(module).__name__}.{name} {() if tensor is None else tuple(tensor.shape)} and what came before"
            raise CheckpointError(where, "must be as large as the network that its folder describes", got, _FIX)

    hooks = (register_module_parameter_registration_hook(check), register_module_buffer_registration_hook(check))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
