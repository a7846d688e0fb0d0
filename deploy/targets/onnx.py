"""ONNX: one file with its weights inside, dynamic batch, no trace of the machine that wrote it."""

from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.export import ExportedProgram

from deploy.conversion import Conversion
from deploy.session import open_runner
from deploy.target import EXPORT_TARGETS, ExportTarget, Written
from shared_peft.atomic import replacing
from shared_peft.errors import ExportError
from shared_peft.packages import load_package

_BATCH = "batch"


@EXPORT_TARGETS.register("onnx")
class OnnxTarget(ExportTarget):
    """One .onnx file, run by onnxruntime."""

    file_name = "model.onnx"

    def __init__(self) -> None:
        self._conversion = Conversion()

    def check_packages(self) -> None:
        """Raise MissingPackageError where onnx, onnxscript or onnxruntime is not installed."""
        for name in ("onnx", "onnxscript", "onnxruntime"):
            load_package(name, "export target onnx", extra="deploy")

    def write(self, program: ExportedProgram, path: Path, *, input_name: str, opset: int) -> Written:
        """Write ``program`` as ONNX; see `ExportTarget.write`."""
        self.check_packages()
        model = self._conversion.model(program, input_name=input_name, opset=opset)
        check_opset(model, opset)
        strip(model)
        _name_batch(model, _free_axes(program))
        check_model(model)
        with replacing(path) as temporary:
            temporary.write_bytes(model.SerializeToString(deterministic=True))
        return Written(opset, Counter(node.op_type for node in _all_nodes(model)))

    def open(self, path: Path, *, threads: int = 0) -> Callable[[np.ndarray], np.ndarray]:
        """Return onnxruntime's answer as a function; see `ExportTarget.open`."""
        return open_runner(path, threads=threads)


def _free_axes(program: ExportedProgram) -> tuple[int, ...]:
    """Return the axes of a program's one input beside the batch that were traced with a symbol for their size."""
    names = program.graph_signature.user_inputs
    entry = next(node.meta["val"] for node in program.graph.nodes if node.op == "placeholder" and node.name in names)
    return tuple(axis for axis, size in enumerate(entry.shape[1:]) if isinstance(size, torch.SymInt))


def check_opset(model: Any, opset: int) -> None:
    """Refuse a file whose operator set is not the one asked for: the exporter raises low requests silently."""
    written = {entry.domain: entry.version for entry in model.opset_import}
    if written.get("") != opset:
        fix = "Ask for --opset 18, 19 or 20"
        raise ExportError("--opset", f"the exporter writes opset {written.get('')} here", opset, fix)
    if set(written) != {""}:
        domains = ", ".join(sorted(domain for domain in written if domain))
        raise ExportError("model.onnx", "must use standard operators only", f"domains {domains}", "Replace the layers")


def strip(model: Any) -> None:
    """Remove what the exporter adds for debugging: stack traces with local paths, doc strings, inferred shapes."""
    model.ClearField("metadata_props")
    model.ClearField("doc_string")
    model.producer_name, model.producer_version = "saga-peft", ""
    for graph in _graphs(model.graph):
        for name in ("metadata_props", "doc_string", "value_info", "quantization_annotation"):
            graph.ClearField(name)
        for item in (*graph.node, *graph.input, *graph.output, *graph.initializer):
            item.ClearField("doc_string")
            item.ClearField("metadata_props")


def _name_batch(model: Any, free_axes: tuple[int, ...]) -> None:
    """Give the free first dimension one readable name, and each free axis its own; one that was baked in is an error.

    Args:
        model: a ModelProto.
        free_axes: axes of the input beside the batch, the batch not counted, that must be free.
    """
    for value, wanted in (
        (model.graph.input[0], (0, *(axis + 1 for axis in free_axes))),
        (model.graph.output[0], (0,)),
    ):
        shape = value.type.tensor_type.shape.dim
        if tuple(place for place, dim in enumerate(shape) if dim.dim_param) != wanted:
            sizes = [dim.dim_param or dim.dim_value for dim in shape]
            fix = "Write the model so that no shape depends on the batch's size"
            must = "the first dimension alone must be free" if len(wanted) == 1 else f"dimensions {wanted} must be free"
            raise ExportError(value.name, must, sizes, fix)
        for place in wanted:
            shape[place].dim_param = f"size_{place - 1}" if place else _BATCH


def check_model(model: Any) -> None:
    """Raise ExportError where a ModelProto is not valid ONNX, or too large for one file."""
    onnx = load_package("onnx", "export target onnx", extra="deploy")
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        reason = str(error).strip().splitlines()[0][:300]
        raise ExportError(
            "model.onnx", "must pass the ONNX checker", reason, "Report the model's architecture"
        ) from error
    if model.ByteSize() >= 1 << 31:
        raise ExportError("model.onnx", "must be under 2 GiB", model.ByteSize(), "Choose a smaller backbone")


def _graphs(graph: Any) -> Iterable[Any]:
    """Yield a graph and the graphs inside its nodes (If, Loop, Scan)."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (*attribute.graphs, *((attribute.g,) if attribute.HasField("g") else ())):
                yield from _graphs(inner)


def _all_nodes(model: Any) -> Iterable[Any]:
    return (node for graph in _graphs(model.graph) for node in graph.node)
