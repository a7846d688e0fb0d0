"""Batch norms folded into the convolutions before them, the adapter's chain included (ours).

A norm in evaluation is y = s x + t for each channel. It stands after a sum of a frozen convolution and a chain that a
task brings: s (W x + b + B c(x)) + t = (s W) x + (s b + t) + (s B) c(x). So the frozen weight takes s, its bias s and
t, and a task's out-factor B takes s when its adapter file is written; the norm is gone. onnxruntime does that to a
merged model by itself, where every weight is a constant.
"""

from collections import Counter
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np

from shared_peft.packages import load_package

_PRODUCTS = ("MatMul", "Gemm", "Reshape")  # each row of the output comes of that row of the first input
_WEIGHT, _BIAS = 1, 2  # places among a convolution's inputs
_STATISTICS = 5  # inputs of a batch norm: x, scale, shift, mean, variance
Place = tuple[Any, int]
"""An input of a node, by its number."""


@dataclass(frozen=True)
class _Sum:
    """Convolutions whose sum a norm reads.

    Args:
        convolutions: their nodes.
        rows: places that hold tensors with one row a channel: constants, or what a task brings.
    """

    convolutions: tuple[Any, ...]
    rows: tuple[Place, ...]


def fold_norms(proto: Any) -> dict[str, np.ndarray]:
    """Fold every batch norm that reads convolutions alone into them, in place; constants left over stay.

    Args:
        proto: an ONNX ModelProto; what a task brings are inputs without a default yet.

    Returns:
        Factor on each row of a task's tensor, shape (rows,), by the input's name; a name that is missing keeps its
        values.
    """
    graph, factors, kept = _Graph(proto), dict[str, np.ndarray](), []
    for node in proto.graph.node:
        norm = node.op_type == "BatchNormalization"
        statistics = [graph.constants[name] for name in node.input[1:_STATISTICS] if norm and name in graph.constants]
        known = len(statistics) == _STATISTICS - 1
        found = graph.sum_before(node.input[0], len(statistics[0])) if known else None
        if found is None:
            kept.append(node)
            continue
        scale, shift = _affine(node, *statistics)
        graph.apply(found, scale, shift, factors)
        graph.made_by[node.input[0]].output[0] = node.output[0]
    proto.graph.ClearField("node")
    proto.graph.node.extend(kept)
    return factors


def _affine(node: Any, weight: np.ndarray, bias: np.ndarray, mean: np.ndarray, variance: np.ndarray) -> Any:
    """Return a norm's factor and shift, each of shape (channels,), in float64."""
    epsilon = next((each.f for each in node.attribute if each.name == "epsilon"), 1e-5)
    scale = weight / np.sqrt(variance.astype(np.float64) + epsilon)
    return scale, bias - mean * scale


class _Graph:
    """A graph's parts by name.

    Args:
        proto: the ModelProto.
    """

    def __init__(self, proto: Any) -> None:
        self.onnx, self.graph = load_package("onnx", "multi-task graphs", extra="deploy"), proto.graph
        self.made_by = {name: node for node in self.graph.node for name in node.output}
        self.constants = {each.name: self.onnx.numpy_helper.to_array(each) for each in self.graph.initializer}
        self.rows_of_input = {each.name: each.type.tensor_type.shape.dim[0].dim_value for each in self.graph.input}
        self.readers = Counter(name for node in self.graph.node for name in node.input)
        self.readers.update(each.name for each in self.graph.output)

    def sum_before(self, name: str, channels: int) -> _Sum | None:
        """Return the convolutions whose sum is called ``name``, or None where something else takes part in it."""
        node = self.made_by.get(name)
        if node is None or self.readers[name] != 1:
            return None
        if node.op_type == "Add":
            parts = [self.sum_before(each, channels) for each in node.input]
            if None in parts:
                return None
            known = [part for part in parts if part is not None]
            convolutions = chain.from_iterable(part.convolutions for part in known)
            return _Sum(tuple(convolutions), tuple(chain.from_iterable(part.rows for part in known)))
        rows = self.rows(node, _WEIGHT, channels) if node.op_type == "Conv" else None
        free = any(name and name not in self.constants for name in node.input[_BIAS:])
        return None if rows is None or free else _Sum((node,), rows)

    def rows(self, node: Any, number: int, channels: int) -> tuple[Place, ...] | None:
        """Return the places whose rows make those of a weight, or None where they cannot be told."""
        name = node.input[number]
        if name in self.constants:
            return ((node, number),) if len(self.constants[name]) == channels else None
        if name in self.rows_of_input:
            fits = self.rows_of_input[name] == channels and self.readers[name] == 1
            return ((node, number),) if fits else None
        maker = self.made_by[name]
        if self.readers[name] != 1 or maker.op_type not in ("Add", *_PRODUCTS):
            return None
        read = range(len(maker.input)) if maker.op_type == "Add" else [0]
        parts = [self.rows(maker, each, channels) for each in read]
        return None if None in parts else tuple(chain.from_iterable(part for part in parts if part is not None))

    def apply(self, found: _Sum, scale: np.ndarray, shift: np.ndarray, factors: dict[str, np.ndarray]) -> None:
        """Multiply a sum's rows by ``scale``; all biases and ``shift`` become the bias of its first convolution."""
        for node, number in found.rows:
            name = node.input[number]
            if name in self.constants:
                values = self.constants[name]
                node.input[number] = self._added(name, values * scale.reshape(-1, *(1,) * (values.ndim - 1)))
            else:
                factors[name] = scale
        bias = shift
        for node in found.convolutions:
            bias = bias + sum(scale * self.constants[name] for name in node.input[_BIAS:] if name)
            del node.input[_BIAS:]
        first = found.convolutions[0]
        first.input.append(self._added(first.output[0], bias))

    def _added(self, name: str, values: np.ndarray) -> str:
        """Store a constant under a new name and return that; others may read the old one."""
        new = f"{name}.folded{len(self.constants)}"
        self.constants[new] = values.astype(np.float32)
        self.graph.initializer.append(self.onnx.numpy_helper.from_array(self.constants[new], new))
        return new
