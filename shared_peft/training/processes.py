"""Several processes of one run, as `accelerate launch` starts them: one of them reads and writes for all."""

import contextlib
import gc
import io
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import torch

from shared_peft.errors import SagaPeftError

Answer = TypeVar("Answer")


def is_main() -> bool:
    """Tell whether this process writes files and speaks; alone, it does."""
    return bool(_processes().is_main_process)


def on_main(work: Callable[[], Answer]) -> Answer:
    """Do ``work`` in the main process alone.

    Args:
        work: called without arguments; its answer must be picklable where there are several processes.

    Returns:
        The answer, in every process.

    Raises:
        SagaPeftError: what the work raised, in every process.
    """
    state = _processes()
    if state.num_processes == 1:
        return work()
    from accelerate.utils import broadcast_object_list  # noqa: PLC0415

    answer: list[Any] = [None]
    if state.is_main_process:
        try:
            answer = [work()]
        except SagaPeftError as error:
            answer = [error]
    broadcast_object_list(answer)
    if isinstance(answer[0], SagaPeftError):
        raise answer[0]
    return answer[0]


@contextlib.contextmanager
def one_voice() -> Iterator[None]:
    """Let only the main process write to standard output inside the block, and take leave of the others after it."""
    state = _processes()
    quiet = contextlib.nullcontext() if state.is_main_process else contextlib.redirect_stdout(io.StringIO())
    try:
        with quiet:
            yield
    finally:
        gc.collect()  # wrappers of models hold on to the process group, and abort where they outlive it
        state.destroy_process_group()


def _processes() -> Any:
    from accelerate import PartialState  # noqa: PLC0415  (slow to import; not needed to use adapters)

    return PartialState(cpu=not torch.cuda.is_available())
