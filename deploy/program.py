"""From a trained model to a program: merge what can be merged, then torch.export with a dynamic batch."""

import contextlib
import copy
import warnings
from collections.abc import Iterator

import torch
from torch import nn
from torch.export import Dim, ExportedProgram

from shared_peft import METHODS, AdapterLayer, PeftModel
from shared_peft.errors import ExportError, MergeError
from shared_peft.method import method_name

MAX_BATCH = 4096
EXAMPLE_BATCH = 3  # 2 or more: with 1, attention bakes the batch in without a word
_TORCH_NOTES = (r".isinstance\(treespec, LeafSpec\)",)


def unmergeable_methods(model: nn.Module) -> tuple[str, ...]:
    """Return the names of a model's active adapter methods that are no weight change; they export as extra nodes."""
    if not isinstance(model, PeftModel):
        return ()
    methods = [method_name(model.peft_config[name]) for name in model.active_adapters]
    return tuple(method for method in dict.fromkeys(methods) if not METHODS.get(method).mergeable)


def merged_copy(model: nn.Module) -> nn.Module:
    """Return a float32 CPU copy in eval mode, its adapters merged into the weights unless a method cannot be merged.

    Args:
        model: an adapted model, or a plain one; left as it is.

    Raises:
        MergeError: an adapter that gives weights that are not finite, or that no PeftModel holds.
    """
    twin: nn.Module = copy.deepcopy(model).cpu().float().eval()
    if isinstance(twin, PeftModel) and unmergeable_methods(twin):
        return twin.get_base_model().requires_grad_(False)  # its forward names its arguments, a PeftModel's does not
    if isinstance(twin, PeftModel):
        twin = twin.merge_and_unload(safe_merge=True)
    left = [name for name, module in twin.named_modules() if isinstance(module, AdapterLayer)]
    if left:
        must = "its adapters must be merged before export"
        fix = "Pass the PeftModel that get_peft_model returns, not the model inside it"
        raise MergeError(type(twin).__name__, must, f"adapters at {', '.join(left[:5])}", fix)
    return twin.eval().requires_grad_(False)


def export_program(model: nn.Module, input_shape: tuple[int, ...]) -> ExportedProgram:
    """Trace ``model`` into a program whose batch may be 1 to 4096.

    Args:
        model: a model in eval mode with one float32 input.
        input_shape: the input's shape without the batch.

    Returns:
        The exported program.

    Raises:
        ExportError: torch.export cannot trace the model, or its batch is not free.
    """
    example = torch.zeros(EXAMPLE_BATCH, *input_shape)
    batch = Dim("batch", min=1, max=MAX_BATCH)
    try:
        with quiet_export(), torch.no_grad():
            return torch.export.export(model, (example,), dynamic_shapes=({0: batch},))
    except Exception as error:  # torch.export lets through whatever the model's own code raises under tracing
        reason = " ".join(str(error).split())[:240] or type(error).__name__
        must = "torch.export must trace it with a free batch"
        fix = "Write the forward with x.shape[0] for len(x), without branches on tensor values or the batch"
        raise ExportError(type(model).__name__, must, reason, fix) from error


@contextlib.contextmanager
def quiet_export() -> Iterator[None]:
    """Silence the deprecation notes torch's exporter gives about its own code; every other warning passes."""
    with warnings.catch_warnings():
        for message in _TORCH_NOTES:
            warnings.filterwarnings("ignore", message=message, category=FutureWarning)
        yield
