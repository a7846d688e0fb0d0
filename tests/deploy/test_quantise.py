"""What becomes int8 and what must not: the traps of onnxruntime's quantiser, each with the answers it would spoil."""

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from deploy.graph_edit import halve, operators, read_graph, share_equal, store_int8, write_graph
from deploy.parity import TOLERANCE
from deploy.program import export_program
from deploy.quantise import (
    WeightNode,
    chosen_kind,
    inner_nodes,
    prepared,
    quantise_dynamic,
    quantise_static,
    weight_nodes,
)
from deploy.randomise import randomised_copy
from deploy.session import open_runner
from deploy.targets.onnx import OnnxTarget
from imu_saga.signal.features import WindowFeatures
from shared_peft.errors import ExportError
from tests.deploy.nets import NETS, SAMPLES, trained_net


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Return (trained model, its file, the file of its twin with random weights) by name; each is exported once."""
    made, target = {}, OnnxTarget()

    def make(name):
        if name not in made:
            trained, folder = trained_net(name), tmp_path_factory.mktemp(name)
            twin = randomised_copy(trained.model, trained.examples, generator=torch.Generator().manual_seed(0))
            for model, file in ((trained.model, "model.onnx"), (twin, "twin.onnx")):
                program = export_program(model, trained.input_shape)
                target.write(program, folder / file, input_name=trained.input_name, opset=20)
            made[name] = trained, folder / "model.onnx", folder / "twin.onnx"
        return made[name]

    return make


def _answers(model, path, rows):
    write_graph(model, path)
    return open_runner(path, threads=1)(rows)


def _rows(trained):
    return trained.validation().inputs.numpy()


def test_constant_tables_are_no_weights(exported):
    _, model, twin = exported("table")
    found = weight_nodes(prepared(model), prepared(twin))
    assert sorted(node.elements for node in found) == sorted(
        (96 * 6 * 3, 96 * 768, 96 * 768, 96 * 96, 96 * 96, 3 * (96 + 6 * SAMPLES // 2))
    )


def test_a_table_in_int8_would_move_the_answers_many_times_as_far(exported, tmp_path):
    trained, model, twin = exported("table")
    rows = _rows(trained)
    expected = open_runner(model, threads=1)(rows)
    weights = weight_nodes(prepared(model), prepared(twin))
    everything = weight_nodes(prepared(model), onnx.ModelProto())
    assert len(everything) == len(weights) + 1
    moved = [
        np.abs(_answers(quantise_dynamic(prepared(model), nodes), tmp_path / "m.onnx", rows) - expected).max()
        for nodes in (weights, everything)
    ]
    assert moved[1] > 3 * moved[0]


def test_dynamic_int8_answers_like_float32_although_a_weight_is_used_twice(exported, tmp_path):
    trained, model, twin = exported("table")
    rows = _rows(trained)
    quantised = quantise_dynamic(prepared(model), weight_nodes(prepared(model), prepared(twin)))
    expected = open_runner(model, threads=1)(rows)
    got = _answers(quantised, tmp_path / "m.onnx", rows)
    assert np.abs(got - expected).max() < 0.05 * np.ptp(expected)


def test_a_weight_used_twice_is_stored_once(exported):
    _, model, twin = exported("table")
    quantised = quantise_dynamic(prepared(model), weight_nodes(prepared(model), prepared(twin)))
    share_equal(quantised)
    squares = [t for t in quantised.graph.initializer if list(t.dims) == [96, 96]]
    assert [tensor.data_type for tensor in squares] == [onnx.TensorProto.INT8]


def test_a_prepared_graph_has_shapes_that_dynamic_int8_must_forget(exported):
    _, model, twin = exported("table")
    graph = prepared(model)
    nodes = weight_nodes(graph, prepared(twin))
    assert len(graph.graph.value_info) > 0
    wide = next(t for t in graph.graph.initializer if sorted(t.dims) == [96, 768])
    graph.graph.value_info.append(onnx.helper.make_tensor_value_info(wide.name, wide.data_type, list(wide.dims)))
    quantise_dynamic(graph, nodes)
    assert len(graph.graph.value_info) == 0


@pytest.mark.parametrize("name", NETS)
def test_dynamic_int8_never_touches_a_convolution(exported, name):
    _, model, twin = exported(name)
    nodes = weight_nodes(prepared(model), prepared(twin))
    assert any(node.operator == "Conv" for node in nodes)
    found = operators(quantise_dynamic(prepared(model), nodes))
    assert found["Conv"] == sum(node.operator == "Conv" for node in nodes)
    assert found["ConvInteger"] == 0
    assert found["MatMulInteger"] == sum(node.operator != "Conv" for node in nodes)


def test_static_int8_is_per_channel_with_signed_weights_and_unsigned_activations(exported):
    trained, model, twin = exported("conv")
    nodes = weight_nodes(prepared(model), prepared(twin))
    graph = quantise_static(prepared(model), nodes, _rows(trained)[:8]).graph
    tensors = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    weights = [node for node in graph.node if node.op_type == "DequantizeLinear" and node.input[0] in tensors]
    kernels = [node for node in weights if tensors[node.input[0]].ndim == 4]
    assert len(kernels) == 2  # not the stem, which reads the raw input
    for node in kernels:
        assert tensors[node.input[0]].dtype == np.int8
        assert tensors[node.input[1]].shape == (tensors[node.input[0]].shape[0],)
        assert not tensors[node.input[2]].any()
    activations = [node for node in graph.node if node.op_type == "QuantizeLinear"]
    assert {tensors[node.input[2]].dtype for node in activations} == {np.dtype(np.uint8)}


def test_static_int8_answers_like_float32(exported, tmp_path):
    trained, model, twin = exported("conv")
    rows = _rows(trained)
    nodes = weight_nodes(prepared(model), prepared(twin))
    expected = open_runner(model, threads=1)(rows)
    got = _answers(quantise_static(prepared(model), nodes, rows[::4]), tmp_path / "m.onnx", rows)
    assert np.abs(got - expected).max() < 0.05 * np.ptp(expected)


def test_static_int8_leaves_what_reads_the_raw_input_alone(exported):
    trained, model, twin = exported("table")
    nodes = weight_nodes(prepared(model), prepared(twin))
    graph = quantise_static(prepared(model), nodes, _rows(trained)[:8]).graph
    maker = {name: node for node in graph.node for name in node.output}
    logarithm = next(node for node in graph.node if node.op_type == "Log")
    behind, above = [logarithm], []
    while behind:
        node = behind.pop()
        above.append(node.op_type)
        behind += [maker[name] for name in node.input if name in maker]
    assert {"QuantizeLinear", "DequantizeLinear"}.isdisjoint(above)


@pytest.mark.parametrize(
    ("operators", "kind"),
    [
        ({"Conv": 1000, "Gemm": 10}, "static"),
        ({"Conv": 400, "MatMul": 300, "Gemm": 300}, "dynamic"),
        ({"MatMul": 1000}, "dynamic"),
    ],
)
def test_kind_follows_the_operators_that_hold_the_weights(operators, kind):
    assert chosen_kind([WeightNode(name, name, name, count) for name, count in operators.items()]) == kind


def test_layers_that_read_the_raw_input_and_a_small_last_one_keep_float32(exported):
    for name, expected in (("conv", [96 * 96 * 9, 96 * 96 * 9]), ("table", [96 * 768, 96 * 768, 96 * 96, 96 * 96])):
        _, model, twin = exported(name)
        nodes = weight_nodes(prepared(model), prepared(twin))
        assert [node.elements for node in inner_nodes(prepared(model), nodes)] == expected


def test_a_large_last_layer_is_quantised():
    nodes = [onnx.helper.make_node("MatMul", [f"t{i}", f"w{i}"], [f"t{i + 1}"], name=f"n{i}") for i in range(3)]
    tensors = [numpy_helper.from_array(np.ones((4, 4), np.float32), f"w{i}") for i in range(3)]
    model = onnx.helper.make_model(onnx.helper.make_graph(nodes, "g", [], [], tensors))
    found = [WeightNode(f"n{i}", "MatMul", f"w{i}", count) for i, count in enumerate((10, 900, 90))]
    assert [node.name for node in inner_nodes(model, found)] == ["n1", "n2"]


def test_graph_that_the_tools_do_not_take_is_a_users_error(tmp_path):
    (tmp_path / "broken.onnx").write_bytes(b"\x08\x08no graph")
    with pytest.raises(ExportError, match="preparing for int8: onnxruntime's tools must take the graph, got"):
        prepared(tmp_path / "broken.onnx")


def test_halved_file_is_the_model_with_weights_rounded_to_half_precision(exported, tmp_path):
    trained, model, _ = exported("conv")
    graph, rows = read_graph(model), _rows(trained)
    for tensor in graph.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.dtype == np.float32 and values.size >= 64:
            tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float16).astype(np.float32), tensor.name))
    expected = _answers(graph, tmp_path / "rounded.onnx", rows)
    halved = read_graph(model)
    halve(halved, {tensor.name for tensor in halved.graph.initializer})
    got = _answers(halved, tmp_path / "halved.onnx", rows)
    np.testing.assert_allclose(got, expected, rtol=0, atol=TOLERANCE)
    assert (tmp_path / "halved.onnx").stat().st_size < 0.52 * model.stat().st_size


def test_what_half_precision_cannot_hold_is_left_in_float32():
    values = {"large": np.full(100, 1e6), "small": np.geomspace(1e-9, 1e-6, 100), "fits": np.linspace(-2, 2, 100)}
    tensors = [numpy_helper.from_array(value.astype(np.float32), name) for name, value in values.items()]
    model = onnx.helper.make_model(onnx.helper.make_graph([], "g", [], [], tensors))
    halve(model, values.keys())
    assert {t.name for t in model.graph.initializer if t.data_type == onnx.TensorProto.FLOAT16} == {"fits.half"}


@pytest.mark.parametrize("length", [200, 333])
def test_a_table_of_few_values_is_stored_in_a_byte_an_entry_and_stays_float32(tmp_path, length):
    features = WindowFeatures(("acc_x",), 100.0, length)
    table = features.cosines.numpy()
    model = _constant_model(table)
    halve(model, {"w"})
    stored = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    assert stored["w.codes"].dtype == np.uint8
    assert stored["w.palette"].size <= 256
    assert model.ByteSize() < 0.65 * _halved_size(table)
    got = _answers(model, tmp_path / "m.onnx", np.zeros(1, np.float32))
    np.testing.assert_allclose(got, table, rtol=0, atol=1e-6 * table.max())
    assert np.abs(table.astype(np.float16) - table).max() > 1e-4 * table.max()


@pytest.mark.parametrize(
    "values", [np.random.default_rng(0).normal(size=(64, 64)), np.arange(100), np.tile(np.arange(300), 20)]
)
def test_values_that_a_byte_cannot_tell_apart_or_that_are_few_take_half_precision(values):
    model = _constant_model(values.astype(np.float32))
    halve(model, {"w"})
    assert [t.name for t in model.graph.initializer] == ["w.half"]


def _halved_size(values):
    return onnx.helper.make_model(
        onnx.helper.make_graph([], "g", [], [], [numpy_helper.from_array(values.astype(np.float16), "w")])
    ).ByteSize()


def _constant_model(values):
    """A graph that gives a constant called w, whatever comes."""
    nodes = [onnx.helper.make_node("Identity", ["w"], ["out"]), onnx.helper.make_node("Identity", ["in"], ["kept"])]
    value, kind = onnx.helper.make_tensor_value_info, onnx.TensorProto.FLOAT
    outputs = [value("out", kind, values.shape), value("kept", kind, [1])]
    graph = onnx.helper.make_graph(
        nodes, "g", [value("in", kind, [1])], outputs, [numpy_helper.from_array(values, "w")]
    )
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10)


def test_stored_int8_weights_are_within_half_a_step_of_each_row(tmp_path):
    weight = np.random.default_rng(0).normal(size=(5, 3, 2)).astype(np.float32) * np.array(
        [1e-3, 1, 10, 0, 5], np.float32
    ).reshape(5, 1, 1)
    model = _constant_model(weight)
    store_int8(model, {"w"})
    got = _answers(model, tmp_path / "m.onnx", np.zeros(1, np.float32))
    step = np.abs(weight).max(axis=(1, 2), keepdims=True) / 127
    assert (np.abs(got - weight) <= 0.5 * step * (1 + 1e-5)).all()
    assert any(t.data_type == onnx.TensorProto.INT8 for t in model.graph.initializer)
