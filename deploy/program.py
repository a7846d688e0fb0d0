"""From a trained model to a program: merge what can be merged, then torch.export with a dynamic batch."""

import contextlib
import copy
import hashlib
import warnings
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from deploy.recurrent import with_operators
from shared_peft import METHODS, AdapterLayer, PeftModel
from shared_peft.errors import ExportError, MergeError
from shared_peft.method import method_name

MAX_BATCH = 4096
EXAMPLE_BATCH = 3  # 2 or more: with 1, attention bakes the batch in without a word
LEAST_SIZE, MAX_SIZE = 8, 8192  # of a free axis beside the batch: an image's height or width [px]; ours
_TORCH_NOTES = {
    r".isinstance\(treespec, LeafSpec\)": FutureWarning,
    r"The tensor attributes? .*_flat_weights": UserWarning,  # adapters of recurrent layers put these back themselves
}


def unmergeable_methods(model: nn.Module) -> tuple[str, ...]:
    """Return the names of a model's active adapter methods that are no weight change; they export as extra nodes."""
    adapted = [module for module in model.modules() if isinstance(module, PeftModel)]
    methods = [method_name(module.peft_config[name]) for module in adapted for name in module.active_adapters]
    return tuple(method for method in dict.fromkeys(methods) if not METHODS.get(method).mergeable)


def merged_copy(model: nn.Module) -> nn.Module:
    """Return a float32 CPU copy in eval mode, its adapters merged into the weights unless a method cannot be merged.

    Args:
        model: an adapted model, one inside another (such as preprocessing), or a plain one; left as it is.

    Raises:
        MergeError: an adapter that gives weights that are not finite, or that no PeftModel holds.
    """
    twin: nn.Module = copy.deepcopy(model).cpu().float().eval()
    extra_nodes = bool(unmergeable_methods(twin))
    adapted = {name: module for name, module in twin.named_modules() if isinstance(module, PeftModel)}
    for name, module in adapted.items():
        # the inner model's forward names its arguments, a PeftModel's does not
        merged = module.get_base_model() if extra_nodes else module.merge_and_unload(safe_merge=True)
        twin = _replaced(twin, name, merged)
    if extra_nodes:
        return twin.requires_grad_(False)
    left = [name for name, module in twin.named_modules() if isinstance(module, AdapterLayer)]
    if left:
        must = "its adapters must be merged before export"
        fix = "Pass the PeftModel that get_peft_model returns, not the model inside it"
        raise MergeError(type(twin).__name__, must, f"adapters at {', '.join(left[:5])}", fix)
    return twin.eval().requires_grad_(False)


def _replaced(model: nn.Module, name: str, part: nn.Module) -> nn.Module:
    """Return ``model`` with ``part`` in the place of the module called ``name``; "" is the model itself."""
    if not name:
        return part
    parent, _, last = name.rpartition(".")
    setattr(model.get_submodule(parent), last, part)
    return model


def export_program(
    model: nn.Module,
    input_shape: tuple[int, ...],
    *,
    dtype: torch.dtype = torch.float32,
    free_axes: tuple[int, ...] = (),
) -> ExportedProgram:
    """Trace ``model`` into a program whose batch may be 1 to 4096.

    Args:
        model: a model in eval mode with one input; each nn.GRU becomes one operator (`deploy.recurrent`).
        input_shape: the input's shape without the batch.
        dtype: the input's type.
        free_axes: axes of ``input_shape`` that may have 8 to 8192 entries.

    Returns:
        The exported program.

    Raises:
        ExportError: torch.export cannot trace the model, or its batch or a free axis is not free.
    """
    example = torch.zeros(EXAMPLE_BATCH, *input_shape, dtype=dtype)
    free = {0: Dim("batch", min=1, max=MAX_BATCH)}
    free |= {axis + 1: Dim(f"size_{axis}", min=LEAST_SIZE, max=MAX_SIZE) for axis in free_axes}
    try:
        with quiet_export(), torch.no_grad():
            return torch.export.export(with_operators(model), (example,), dynamic_shapes=(free,))
    except Exception as error:  # torch.export lets through whatever the model's own code raises under tracing
        reason = " ".join(str(error).split())[:240] or type(error).__name__
        must = "torch.export must trace it with a free batch"
        fix = "Write the forward with x.shape[0] for len(x), without branches on tensor values or the batch"
        raise ExportError(type(model).__name__, must, reason, fix) from error


def graph_digest(program: ExportedProgram) -> str:
    """Return a hash of all that a program is but for its weights' values.

    Operations with their arguments, names, shapes and types of all inputs and weights, and the range of the batch.
    Programs of one digest give one ONNX graph before optimisation.
    """
    weights = {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in weights_of(program).items()}
    others = {name: repr(value) for name, value in program.constants.items() if not isinstance(value, Tensor)}
    shapes = [str(getattr(node.meta.get("val"), "shape", "")) for node in program.graph.nodes]
    parts = (program.graph, program.graph_signature, shapes, program.range_constraints, weights, others)
    inner = [module.code for module in program.graph_module.modules() if isinstance(module, torch.fx.GraphModule)]
    return hashlib.sha256("\n".join(map(str, (*parts, *inner))).encode()).hexdigest()


def weights_of(program: ExportedProgram) -> dict[str, Tensor]:
    """Return parameters, buffers and constants by the names their initialisers get."""
    constants = {name: value for name, value in program.constants.items() if isinstance(value, Tensor)}
    return {name: value.detach() for name, value in {**program.state_dict, **constants}.items()}


def exchange_weights(program: ExportedProgram, model: nn.Module) -> None:
    """Give a program the weights of another model of its architecture: a trace sees no weight's value.

    New tensors take the places of the old ones, which stay as they are for whoever still holds them.

    Args:
        program: what `export_program` made of a model.
        model: the same but for parameters and statistics.
    """
    weights = with_operators(model).state_dict()
    for name, tensor in program.state_dict.items():
        assert tensor.shape == weights[name].shape, name
        other = weights[name].detach()
        is_parameter = isinstance(tensor, nn.Parameter)
        program.state_dict[name] = nn.Parameter(other, requires_grad=False) if is_parameter else other


@contextlib.contextmanager
def quiet_export() -> Iterator[None]:
    """Silence the notes torch's exporter gives about its own code and about ours; every other warning passes."""
    with warnings.catch_warnings():
        for message, category in _TORCH_NOTES.items():
            warnings.filterwarnings("ignore", message=message, category=category)
        yield
