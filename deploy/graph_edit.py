"""Changes to a finished ONNX graph that leave its answers: store in half precision, share, shorten, tidy."""

import tempfile
from collections import Counter
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np

from shared_peft.atomic import replacing
from shared_peft.packages import load_package

_ERRORS_ONLY = 3
LEAST_ELEMENTS = 64  # ours: a Cast node takes 40 bytes, so smaller tensors are not worth halving
_ALIKE = 1e-6
_MOST_CODES, _PROBED = 256, 4096  # values a byte tells apart; entries that show at once that there are more
_SMALLEST_HALF, _LARGEST_HALF = 2.0**-14, 65504.0  # of IEEE 754 binary16; below, digits are lost


def read_graph(path: Path) -> Any:
    """Return the ModelProto of an .onnx file."""
    return load_package("onnx", "reading an ONNX file", extra="deploy").load(str(path))


def write_graph(model: Any, path: Path) -> None:
    """Write a ModelProto, whole or not at all; the same model gives the same bytes."""
    with replacing(path) as temporary:
        temporary.write_bytes(model.SerializeToString(deterministic=True))


def halve(model: Any, names: Collection[str]) -> None:
    """Store float32 tensors in half the size or less; everything is still computed in float32.

    Half precision with a Cast behind; or, where there are at most 256 different values, as in the tables of a
    spectrum, one byte an entry and the values in float32. onnxruntime computes the nodes when it loads the file.
    Computing in half precision would overflow in sums of squares, and no processor without such instructions gains by
    it.

    Args:
        model: a ModelProto, changed in place.
        names: initialisers that may be halved; small ones, and those that half precision cannot hold, are left.
    """
    onnx = load_package("onnx", "half precision", extra="deploy")
    nodes, palettes = [], []
    for tensor in model.graph.initializer:
        if tensor.name not in names or tensor.data_type != onnx.TensorProto.FLOAT:
            continue
        values, full = onnx.numpy_helper.to_array(tensor), tensor.name
        if values.size < LEAST_ELEMENTS or not _fits(values):
            continue
        coded = _coded(values)
        if coded is None:
            tensor.CopyFrom(onnx.numpy_helper.from_array(values.astype(np.float16), f"{full}.half"))
            nodes.append(_cast(onnx, tensor.name, full, onnx.TensorProto.FLOAT))
            continue
        palette, codes = coded
        tensor.CopyFrom(onnx.numpy_helper.from_array(codes, f"{full}.codes"))
        palettes.append(onnx.numpy_helper.from_array(palette, f"{full}.palette"))
        nodes.append(_cast(onnx, tensor.name, f"{full}.places", onnx.TensorProto.INT32))
        nodes.append(onnx.helper.make_node("Gather", [f"{full}.palette", f"{full}.places"], [full], axis=0))
    model.graph.initializer.extend(palettes)
    _put_first(model, nodes)


def _coded(values: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Return the different values, float32, and the place of every entry among them, uint8.

    Values closer than a millionth of the largest count as one. None where they are too many, or take as much as half
    precision.
    """
    flat = values.reshape(-1)
    steps = np.rint(flat / max(float(np.abs(flat).max()) * _ALIKE, np.finfo(np.float32).tiny))
    if len(np.unique(steps[:_PROBED])) > _MOST_CODES:
        return None
    _, first, codes = np.unique(steps, return_index=True, return_inverse=True)
    if len(first) > _MOST_CODES or flat.size < 4 * len(first) + LEAST_ELEMENTS:
        return None
    return flat[first], codes.reshape(values.shape).astype(np.uint8)


def _cast(onnx: Any, source: str, target: str, kind: int) -> Any:
    return onnx.helper.make_node("Cast", [source], [target], name=f"{target}.cast", to=kind)


def store_int8(model: Any, names: Collection[str]) -> None:
    """Store float32 weights as int8 with one scale a row, behind a Cast and a Mul; float32 computes as before.

    onnxruntime folds both nodes when it loads the file. For weights whose layer is slower in int8.

    Args:
        model: a ModelProto, changed in place.
        names: initialisers of convolutions, whose first dimension counts output channels, or of recurrent layers,
            whose first two count directions and the rows of the gates.
    """
    onnx = load_package("onnx", "int8 weights", extra="deploy")
    recurrent = {name for node in model.graph.node if node.op_type == "GRU" for name in node.input}
    nodes, scales = [], []
    for tensor in model.graph.initializer:
        if tensor.name not in names:
            continue
        values, full = onnx.numpy_helper.to_array(tensor), tensor.name
        rows = 2 if full in recurrent else 1
        largest = np.abs(values).max(axis=tuple(range(rows, values.ndim)), keepdims=True)
        scale = np.where(largest > 0, largest / 127, 1).astype(np.float32)
        tensor.CopyFrom(onnx.numpy_helper.from_array(np.rint(values / scale).astype(np.int8), f"{full}.int8"))
        scales.append(onnx.numpy_helper.from_array(scale, f"{full}.scale"))
        nodes.append(onnx.helper.make_node("Cast", [f"{full}.int8"], [f"{full}.cast"], to=onnx.TensorProto.FLOAT))
        nodes.append(onnx.helper.make_node("Mul", [f"{full}.cast", f"{full}.scale"], [full]))
    model.graph.initializer.extend(scales)
    _put_first(model, nodes)


def _put_first(model: Any, nodes: list[Any]) -> None:
    after = [_copy(node) for node in model.graph.node]
    model.graph.ClearField("node")
    model.graph.node.extend([*nodes, *after])


def _fits(values: np.ndarray) -> bool:
    largest = float(np.abs(values).max())
    return largest == 0 or _SMALLEST_HALF <= largest <= _LARGEST_HALF  # false for NaN


def share_equal(model: Any) -> None:
    """Keep one of each set of initialisers with the same bytes, in place: layers run several times share weights."""
    first: dict[tuple[int, tuple[int, ...], bytes], str] = {}
    kept, renamed = [], {}
    onnx = load_package("onnx", "sharing weights", extra="deploy")
    for tensor in model.graph.initializer:
        array = onnx.numpy_helper.to_array(tensor)
        key = (tensor.data_type, tuple(tensor.dims), array.tobytes())
        renamed[tensor.name] = first.setdefault(key, tensor.name)
        if renamed[tensor.name] == tensor.name:
            kept.append(tensor)
    kept = [_copy(tensor) for tensor in kept]
    model.graph.ClearField("initializer")
    model.graph.initializer.extend(kept)
    for node in model.graph.node:
        node.input[:] = [renamed.get(name, name) for name in node.input]


def _copy(message: Any) -> Any:
    twin = type(message)()
    twin.CopyFrom(message)
    return twin


def shorten(model: Any) -> None:
    """Give every tensor but the inputs and outputs a short name and drop node names, in place.

    A graph with subgraphs, which may use outer names, is left as it is.
    """
    graph = model.graph
    if any(attribute.HasField("g") or attribute.graphs for node in graph.node for attribute in node.attribute):
        return
    kept = {"", *(value.name for value in (*graph.input, *graph.output))}
    found = [tensor.name for tensor in graph.initializer] + [name for node in graph.node for name in node.output]
    numbers = (name for name in map("{:x}".format, range(2 * len(found) + len(kept))) if name not in kept)
    short = {name: name if name in kept else next(numbers) for name in dict.fromkeys(found)}
    for tensor in graph.initializer:
        tensor.name = short[tensor.name]
    for node in graph.node:
        node.ClearField("name")
        for names in (node.input, node.output):
            names[:] = [short.get(name, name) for name in names]


def used_domains(model: Any) -> None:
    """Drop operator sets that no node uses, in place; onnxruntime lists all it knows when it saves a graph."""
    used = {node.domain for node in model.graph.node} | {""}
    kept = [_copy(entry) for entry in model.opset_import if entry.domain in used]
    model.ClearField("opset_import")
    model.opset_import.extend(kept)


def operators(model: Any) -> Counter[str]:
    """Return how often each operator occurs."""
    return Counter(node.op_type for node in model.graph.node)


def fold(model: Any) -> Any:
    """Return a graph in which onnxruntime computed whatever depends on no input, with standard operators only."""
    onnxruntime = load_package("onnxruntime", "folding constants", extra="deploy")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _ERRORS_ONLY
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    with tempfile.TemporaryDirectory() as scratch:
        options.optimized_model_filepath = str(Path(scratch, "folded.onnx"))
        onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        return read_graph(Path(scratch, "folded.onnx"))
