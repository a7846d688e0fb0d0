"""Chains added last, together with the bias: the order in which onnxruntime runs a sum as a part of a convolution.

onnxruntime's ConvAddActivationFusion makes convolution, sum and activation one operation where the convolution has a
bias. So y = a(W x + b + B z + i), with a chain's last map B and perhaps a residual i, is arranged as
a((W x + i) + (B z + b)): nothing is left that passes over the wide map once more (ours).
"""

from collections import Counter
from typing import Any

import numpy as np

from shared_peft.packages import load_package

_BIAS = 2  # place of a convolution's bias among its inputs


def arrange_sums(proto: Any, brought: set[str]) -> None:
    """Arrange the sums of every chain of convolutions, in place.

    Args:
        proto: an ONNX ModelProto, what a task brings among its inputs.
        brought: names of these inputs.
    """
    made_by = {name: node for node in proto.graph.node for name in node.output}
    readers = Counter(name for node in proto.graph.node for name in node.input)
    readers.update(each.name for each in proto.graph.output)
    nodes = list(proto.graph.node)
    for node in list(nodes):
        parts = [made_by[name] for name in node.input if name in made_by] if node.op_type == "Add" else []
        if [part.op_type for part in parts] != ["Conv", "Conv"]:
            continue
        base, chain = parts
        if chain.input[1] in brought and base.input[1] not in brought and readers[base.output[0]] == 1:
            _move_bias(proto, base, chain)
            _add_last(nodes, node, readers)
    proto.graph.ClearField("node")
    proto.graph.node.extend(nodes)


def _move_bias(proto: Any, base: Any, chain: Any) -> None:
    """Let the chain's last convolution add the frozen layer's bias, or zeros."""
    if len(base.input) > _BIAS:
        bias = base.input[_BIAS]
        del base.input[_BIAS:]
    else:
        onnx = load_package("onnx", "multi-task graphs", extra="deploy")
        rows = next(
            each.type.tensor_type.shape.dim[0].dim_value for each in proto.graph.input if each.name == chain.input[1]
        )
        bias = f"no bias of {rows} channels"
        if all(each.name != bias for each in proto.graph.initializer):
            proto.graph.initializer.append(onnx.numpy_helper.from_array(np.zeros(rows, np.float32), bias))
    del chain.input[_BIAS:]
    chain.input.append(bias)


def _add_last(nodes: list[Any], inner: Any, readers: Counter[str]) -> None:
    """Turn (base + chain) + rest into (base + rest) + chain, where the inner sum has no other reader."""
    total = inner.output[0]
    outer = next((each for each in nodes if total in each.input), None)
    if outer is None or readers[total] != 1 or outer.op_type != "Add" or outer.input[0] == outer.input[1]:
        return
    base, chain = inner.input
    rest = next(name for name in outer.input if name != total)
    inner.input[:] = [base, rest]
    outer.input[:] = [total, chain]
    nodes.remove(inner)
    nodes.insert(nodes.index(outer), inner)
