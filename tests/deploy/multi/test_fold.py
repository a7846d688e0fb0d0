"""Norms disappear into convolutions and adapters, and sums into convolutions, without a change of any answer."""

from collections import Counter

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from deploy.multi.adapter_file import read_adapter
from deploy.multi.arrange import arrange_sums
from deploy.multi.fold import fold_norms
from deploy.multi.inputs import arrays_of, same_forms, tensors_of
from tests.deploy.multi.conftest import CONV_TASKS

RNG_SHAPES = {
    "w": (4, 3, 3, 3),
    "v": (4, 3, 1, 1),
    "b": (4,),
    "scale": (4,),
    "shift": (4,),
    "mean": (4,),
    "var": (4,),
    "single": (1,),
}
NORM = ["scale", "shift", "mean", "var"]


def graph_of(nodes, outputs=("y",), brought=("z",)):
    """Return a ModelProto of nodes on an image x, with random constants, and a task's tensors z (4, 3, 1, 1)."""
    rng = np.random.default_rng(0)
    constants = {name: rng.uniform(0.5, 1.5, shape).astype(np.float32) for name, shape in RNG_SHAPES.items()}
    value = helper.make_tensor_value_info
    inputs = [value("x", TensorProto.FLOAT, ["batch", 3, 6, 6])]
    inputs += [value(name, TensorProto.FLOAT, [4, 3, 1, 1]) for name in brought]
    made = [helper.make_node(kind, read, [name], **fields) for kind, read, name, fields in nodes]
    read = {name for node in made for name in node.input}
    stored = [numpy_helper.from_array(array, name) for name, array in constants.items() if name in read]
    outs = [value(name, TensorProto.FLOAT, ["batch", 4, 6, 6]) for name in outputs]
    return helper.make_model(
        helper.make_graph(made, "toy", inputs, outs, stored), opset_imports=[helper.make_opsetid("", 20)], ir_version=9
    )


def convolve(read, name, pads=0):
    return "Conv", read, name, {"pads": [pads] * 4}


def norm(read, name):
    return "BatchNormalization", [read, *NORM], name, {"epsilon": 1e-3}


def plain(kind, read, name):
    return kind, read, name, {}


def answers(proto, z=None):
    """Run a graph on fixed inputs."""
    rng = np.random.default_rng(1)
    feeds = {"x": rng.normal(size=(2, 3, 6, 6)).astype(np.float32)}
    if z is not None:
        feeds["z"] = z
    return onnxruntime.InferenceSession(proto.SerializeToString()).run(None, feeds)


SUM = [convolve(["x", "w", "b"], "wide", 1), convolve(["x", "z"], "chain"), plain("Add", ["wide", "chain"], "sum")]
Z = np.random.default_rng(2).normal(size=(4, 3, 1, 1)).astype(np.float32)


def test_a_norm_after_a_convolution_and_a_chain_is_folded_and_the_answer_stays():
    proto = graph_of([*SUM, norm("sum", "y")])
    expected = answers(proto, Z)
    factors = fold_norms(proto)
    assert [node.op_type for node in proto.graph.node] == ["Conv", "Conv", "Add"]
    assert factors.keys() == {"z"}
    found = answers(proto, (Z * factors["z"].reshape(-1, 1, 1, 1)).astype(np.float32))
    np.testing.assert_allclose(found[0], expected[0], rtol=0, atol=2e-5)


def test_constants_that_two_convolutions_share_keep_their_values_for_the_other():
    nodes = [
        convolve(["x", "w"], "one", 1),
        norm("one", "a"),
        convolve(["x", "w"], "two", 1),
        plain("Sub", ["a", "two"], "y"),
    ]
    proto = graph_of(nodes, brought=())
    expected = answers(proto)
    assert fold_norms(proto) == {}
    assert Counter(node.op_type for node in proto.graph.node) == {"Conv": 2, "Sub": 1}
    np.testing.assert_allclose(answers(proto)[0], expected[0], rtol=0, atol=2e-5)


@pytest.mark.parametrize(
    ("nodes", "outputs"),
    [
        ([*SUM, norm("sum", "y"), plain("Relu", ["sum"], "also")], ("y", "also")),
        ([*SUM, norm("sum", "y")], ("y", "sum")),
        ([convolve(["x", "w"], "wide", 1), plain("Relu", ["wide"], "r"), norm("r", "y")], ("y",)),
        ([convolve(["x", "w"], "wide", 1), plain("Add", ["wide", "single"], "sum"), norm("sum", "y")], ("y",)),
        (
            [
                convolve(["x", "z"], "one"),
                convolve(["x", "z"], "two"),
                plain("Add", ["one", "two"], "s"),
                norm("s", "y"),
            ],
            ("y",),
        ),
    ],
    ids=["another reader", "an output", "an activation between", "something else added", "a tensor used twice"],
)
def test_a_norm_that_reads_more_than_convolutions_stays(nodes, outputs):
    proto = graph_of(nodes, outputs)
    before = proto.SerializeToString()
    assert fold_norms(proto) == {}
    assert proto.SerializeToString() == before


def test_a_chain_is_added_last_with_the_bias_and_onnxruntime_makes_one_operation_of_it(tmp_path):
    rest = convolve(["x", "v"], "rest")
    nodes = [*SUM, rest, plain("Add", ["sum", "rest"], "both"), plain("Relu", ["both"], "y")]
    proto = graph_of(nodes)
    expected = answers(proto, Z)
    arrange_sums(proto, {"z"})
    onnx.checker.check_model(proto)
    np.testing.assert_allclose(answers(proto, Z)[0], expected[0], rtol=0, atol=2e-5)
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath, options.log_severity_level = str(tmp_path / "optimised.onnx"), 3
    onnxruntime.InferenceSession(proto.SerializeToString(), options)
    found = Counter(node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node)
    assert not found.keys() & {"Add", "Relu"}


def test_a_layer_without_bias_lends_its_chain_zeros():
    proto = graph_of(
        [convolve(["x", "w"], "wide", 1), convolve(["x", "z"], "chain"), plain("Add", ["wide", "chain"], "y")]
    )
    expected = answers(proto, Z)
    arrange_sums(proto, {"z"})
    (bias,) = (each for each in proto.graph.initializer if each.name == proto.graph.node[1].input[2])
    np.testing.assert_array_equal(numpy_helper.to_array(bias), np.zeros(4, np.float32))
    np.testing.assert_allclose(answers(proto, Z)[0], expected[0], rtol=0, atol=2e-5)


def test_no_norm_is_left_in_the_graph_and_an_adapter_holds_its_factor(conv):
    graph = onnx.load(conv.folder / "model.onnx").graph
    assert "BatchNormalization" not in {node.op_type for node in graph.node}
    forms = same_forms({name: tensors_of(task) for name, task in conv.tasks.items()})
    for name in CONV_TASKS:
        held = read_adapter(conv.folder / f"{name}.onnx_adapter", conv.mark)
        given = arrays_of(forms[name], {})
        norm = conv.tasks[name].module.dense_norm
        with torch.no_grad():
            factor = (norm.weight / (norm.running_var + norm.eps).sqrt()).numpy()
        expected = given["dense.weight.out_factor"] * factor[:, None, None, None]
        np.testing.assert_allclose(held["dense.weight.out_factor"], expected, rtol=1e-5)
        np.testing.assert_array_equal(held["dense.weight.core"], given["dense.weight.core"])
        assert np.abs(factor - 1).max() > 0.1
