"""The base as one ONNX graph whose adapters are inputs, each optional: without them it is the bare base (ours).

Ranks are free dimensions, one a layer (of a sequential branch two): a task of rank 4 pays for rank 4. On a thread that
takes 1.04 times the merged model's time for vit_tiny's attention and 1.10 times for resnet18; padded with zeros to rank
16 it takes 1.06 and 1.16 times, and files are four times as large (`python -m tests.deploy.multi.measure`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.export import Dim

from deploy.conversion import cause
from deploy.multi.arrange import arrange_sums
from deploy.multi.fold import fold_norms
from deploy.multi.inputs import CLASSES, GraphInput, TaskTensors, replaced
from deploy.multi.layer import Slot, example_like, with_inputs
from deploy.program import EXAMPLE_BATCH, MAX_BATCH, quiet_export
from deploy.target import OUTPUT_NAME
from deploy.targets.onnx import check_model, check_opset, strip
from shared_peft.atomic import replacing
from shared_peft.errors import ExportError
from shared_peft.factors import Factors
from shared_peft.packages import load_package

BASE_KEY = "saga_peft.base_sha256"
MAX_SIZE = 4096  # of a rank, and of a number of classes
_EXAMPLE_RANKS = (2, 5)  # 2 or more: a size of 1 would be baked in
_EXAMPLES = {"rank": _EXAMPLE_RANKS[0], "inner": _EXAMPLE_RANKS[1], CLASSES: 6}  # by the first word of a size's name
_BATCH = "batch"
_WITH_BIAS = 3  # inputs of a convolution: x, weight, bias


@dataclass(frozen=True)
class WrittenGraph:
    """What was written.

    Args:
        opset: operator set version.
        nodes: nodes in the graph.
        inputs: names of all inputs but the model's own.
        factors: what an adapter file must multiply the rows of a tensor by, by the input's name; see `fold_norms`.
    """

    opset: int
    nodes: int
    inputs: tuple[str, ...]
    factors: dict[str, np.ndarray]


class AdaptedGraph(nn.Module):
    """A model as a function of its input and of the tensors a task brings.

    Args:
        model: its adapted layers made by `with_inputs`.
        paths: parameter or buffer that each tensor takes the place of.
    """

    def __init__(self, model: nn.Module, paths: Sequence[str]) -> None:
        super().__init__()
        self.model, self.paths = model, tuple(paths)

    def forward(self, x: Tensor, tensors: tuple[Tensor, ...]) -> Tensor:
        """Return logits, shape (batch, classes)."""
        return torch.func.functional_call(self.model, dict(zip(self.paths, tensors, strict=True)), (x,))


def insert_inputs(model: nn.Module, tasks: Sequence[TaskTensors]) -> list[GraphInput]:
    """Give a plain model the adapted layers of all tasks, in place, and return the graph's inputs for them.

    Args:
        model: without adapters.
        tasks: their changes, every slot in one form.
    """
    examples: dict[str, dict[Slot, Factors]] = {}
    for tensors in tasks:
        for slot, factors in tensors.changes.items():
            examples.setdefault(slot.layer, {}).setdefault(slot, example_like(factors, _EXAMPLE_RANKS))
    inputs: list[GraphInput] = []
    for layer, slots in examples.items():
        replaced(model, layer, with_inputs(model.get_submodule(layer), layer, slots))
        for slot, factors in slots.items():
            inputs += _inputs_of(slot, factors)
    return inputs


def _inputs_of(slot: Slot, factors: Factors) -> list[GraphInput]:
    """Return a slot's inputs; free are the dimensions whose size follows a rank."""
    least, more = (slot.stored(example_like(factors, ranks)) for ranks in ((1, 1), (2, 3)))
    names = {2: f"rank of {slot.layer}.{slot.key}", 3: f"inner rank of {slot.layer}.{slot.key}"}
    inputs = []
    for name, tensor in least.items():
        sizes = list(zip(tensor.shape, more[name].shape, strict=True))
        free = {index: names[size] for index, (one, size) in enumerate(sizes) if one != size}
        inputs.append(GraphInput(name, slot.path(name), np.zeros(tensor.shape, np.float32), free))
    return inputs


def write_graph(  # noqa: PLR0913
    path: Path,
    model: nn.Module,
    inputs: Sequence[GraphInput],
    *,
    feed: tuple[str, tuple[int, ...]],
    base_sha256: str,
    opset: int,
) -> WrittenGraph:
    """Export a model with its task tensors as optional inputs.

    Args:
        path: the .onnx file to write.
        model: as `insert_inputs` left it.
        inputs: tensors that become inputs.
        feed: name and shape (without the batch) of the model's own input.
        base_sha256: of the base, for the graph's metadata.
        opset: operator set version.

    Raises:
        ExportError: the model cannot be traced or written so.
    """
    name, shape = feed
    graph = AdaptedGraph(model, [each.path for each in inputs]).eval()
    proto = _converted(graph, inputs, name, shape, opset)
    check_opset(proto, opset)
    strip(proto)
    _name_dimensions(proto, inputs)
    _drop_zero_biases(proto)
    factors = fold_norms(proto)
    arrange_sums(proto, {each.name for each in inputs})
    _drop_unused(proto)
    check_model(proto)
    nodes = len(proto.graph.node)
    _append_defaults(proto, inputs)
    proto.metadata_props.add(key=BASE_KEY, value=base_sha256)
    check_model(proto)
    with replacing(path) as temporary:
        temporary.write_bytes(proto.SerializeToString(deterministic=True))
    return WrittenGraph(opset, nodes, tuple(each.name for each in inputs), factors)


def _converted(graph: AdaptedGraph, inputs: Sequence[GraphInput], name: str, shape: tuple[int, ...], opset: int) -> Any:
    """Return the ONNX ModelProto of the graph with free batch, ranks and number of classes."""
    sizes = dict.fromkeys(key for each in inputs for key in each.free.values())
    dims = {key: Dim(f"size_{number}", min=1, max=MAX_SIZE) for number, key in enumerate(sizes)}
    free = tuple({index: dims[key] for index, key in each.free.items()} for each in inputs)
    examples = tuple(_example(each) for each in inputs)
    batch = Dim(_BATCH, min=1, max=MAX_BATCH)
    try:
        with quiet_export(), torch.no_grad():
            arguments = (torch.zeros(EXAMPLE_BATCH, *shape), examples)
            program = torch.export.export(graph, arguments, dynamic_shapes=({0: batch}, free))
            converted = torch.onnx.export(
                program,
                dynamo=True,
                opset_version=opset,
                external_data=False,
                input_names=[name, *(each.name for each in inputs)],
                output_names=[OUTPUT_NAME],
                verbose=False,
            )
    except Exception as error:  # the exporters let through whatever the model's own code raises under tracing
        reason = cause(error)
        must, fix = "must export with free batch, ranks and classes", "Export the runs one by one, merged"
        raise ExportError(type(graph.model).__name__, must, reason, fix) from error
    if converted is None:
        raise ExportError("torch.onnx.export", "must return a program", "nothing", "Report the model's architecture")
    return converted.model_proto


def _example(each: GraphInput) -> Tensor:
    """Return zeros with sizes above 1 in the free dimensions."""
    sizes = list(each.default.shape)
    for index, key in each.free.items():
        sizes[index] = _EXAMPLES[key.partition(" ")[0]]
    return torch.zeros(sizes)


def _name_dimensions(proto: Any, inputs: Sequence[GraphInput]) -> None:
    """Give free dimensions readable names; one that was baked in, or a size that became free, is an error."""
    expected = {each.name: each.free for each in inputs}
    known = {each.name: each.default.ndim for each in inputs}
    for value in (*proto.graph.input, *proto.graph.output):
        free = expected.get(value.name, {0: _BATCH})
        if value.name == OUTPUT_NAME:
            free = {0: _BATCH, 1: CLASSES}
        dims = value.type.tensor_type.shape.dim
        found = [index for index, dim in enumerate(dims) if dim.dim_param]
        if not set(found) <= set(free) or any(not dims[index].dim_param for index in free if value.name in known):
            must, fix = f"dimensions {sorted(free)} alone must be free", "Report the model's architecture"
            raise ExportError(value.name, must, found, fix)
        for index in found:
            dims[index].dim_param = free[index]
    if not proto.graph.input[0].type.tensor_type.shape.dim[0].dim_param:
        raise ExportError("batch", "must be free", "a fixed size", "Write the model with x.shape[0] for len(x)")


def _drop_zero_biases(proto: Any) -> None:
    """Take off the zeros, as many as the rank, that the exporter adds to a convolution without bias."""
    made_by = {name: node for node in proto.graph.node for name in node.output}
    for node in proto.graph.node:
        if node.op_type in ("Conv", "ConvTranspose") and len(node.input) > _WITH_BIAS - 1:
            source = made_by.get(node.input[_WITH_BIAS - 1])
            if source is not None and source.op_type == "Expand" and _is_zero(proto, source.input[0]):
                del node.input[_WITH_BIAS - 1]


def _is_zero(proto: Any, name: str) -> bool:
    onnx = load_package("onnx", "multi-task graphs", extra="deploy")
    values = [onnx.numpy_helper.to_array(each) for each in proto.graph.initializer if each.name == name]
    values += [
        onnx.numpy_helper.to_array(node.attribute[0].t)
        for node in proto.graph.node
        if node.op_type == "Constant" and node.output[0] == name
    ]
    return bool(values) and not values[0].any()


def _drop_unused(proto: Any) -> None:
    """Remove nodes and initialisers that nothing reads: the zeros of biases, the weights whose place inputs took."""
    needed, kept = {each.name for each in proto.graph.output}, []
    for node in reversed(proto.graph.node):
        if needed & set(node.output):
            kept.append(node)
            needed |= _read_by(node)
    nodes = kept[::-1]
    initialisers = [each for each in proto.graph.initializer if each.name in needed]
    for field, values in (("node", nodes), ("initializer", initialisers)):
        proto.graph.ClearField(field)
        getattr(proto.graph, field).extend(values)


def _read_by(node: Any) -> set[str]:
    """Return the names a node reads, those of the graphs inside it included."""
    inner = (each for attribute in node.attribute for graph in (attribute.g, *attribute.graphs) for each in graph.node)
    return set(node.input).union(*map(_read_by, inner))


def _append_defaults(proto: Any, inputs: Sequence[GraphInput]) -> None:
    """Give every task tensor a default, which makes its input optional; quantise before, or every slot is lost."""
    onnx = load_package("onnx", "multi-task graphs", extra="deploy")
    proto.graph.initializer.extend(onnx.numpy_helper.from_array(each.default, each.name) for each in inputs)
