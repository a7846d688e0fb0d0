"""Several processes of one run, as `accelerate launch` starts them: one of them reads and writes for all."""

import contextlib
import gc
import io
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import torch

from shared_peft.errors import SagaPeftError, TrainingError

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
    """Let only the main process write to standard output inside the block, and take leave of the others after it.

    Raises:
        TrainingError: another process of the run has died.
    """
    state = _processes()
    quiet = contextlib.nullcontext() if state.is_main_process else contextlib.redirect_stdout(io.StringIO())
    try:
        with quiet:
            yield
    except RuntimeError as error:
        if state.num_processes == 1 or not _tells_of_a_lost_process(error):
            raise
        must, fix = "every process of the run must live", "Look for what ended it, then run the same with --resume"
        reason = str(error).splitlines()[0][:200]
        raise TrainingError(f"process {state.process_index}", must, f"a lost one ({reason})", fix) from error
    finally:
        gc.collect()  # wrappers of models hold on to the process group, and abort where they outlive it
        state.destroy_process_group()


def _tells_of_a_lost_process(error: RuntimeError) -> bool:
    """Tell whether an error comes from what connects the processes: gloo, NCCL or the store of their addresses."""
    return isinstance(error, torch.distributed.DistError) or "gloo" in str(error)


def _processes() -> Any:
    from accelerate import PartialState  # noqa: PLC0415  (slow to import; not needed to use adapters)

    return PartialState(cpu=not torch.cuda.is_available())
