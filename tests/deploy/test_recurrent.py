"""nn.GRU is one operator a layer: the answers of torch, batch and time free, whatever the options."""

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from deploy.graph_edit import read_graph, store_int8
from deploy.program import export_program
from deploy.quantise import chosen_kind, prepared, quantise_dynamic, weight_nodes
from deploy.randomise import randomised_copy
from deploy.recurrent import ExportedGru, with_operators
from deploy.session import open_runner
from deploy.targets.onnx import OnnxTarget
from deploy.targets.program import ProgramTarget
from shared_peft import LoraConfig, get_peft_model
from shared_peft.errors import ExportError

FEATURES, HIDDEN, TIME = 5, 8, 12
KINDS = {
    "plain": {"batch_first": True},
    "time first, no bias": {"bias": False},
    "two ways": {"bidirectional": True, "batch_first": True},
    "deep, two ways": {"num_layers": 3, "bidirectional": True, "batch_first": True},
}


class Recurrent(nn.Module):
    """Mean of all states beside the last ones; input (batch, time, 5)."""

    def __init__(self, **options: object) -> None:
        super().__init__()
        self.gru = nn.GRU(FEATURES, HIDDEN, **options)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        time_first = not self.gru.batch_first
        states, last = self.gru(x.transpose(0, 1) if time_first else x)
        return torch.cat([states.mean(0 if time_first else 1), last.transpose(0, 1).flatten(1)], dim=1)


def _random(kind: str = "deep, two ways", seed: int = 0) -> Recurrent:
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    return randomised_copy(Recurrent(**KINDS[kind]), torch.zeros(2, TIME, FEATURES), generator=generator)


def _written(model, path):
    OnnxTarget().write(export_program(model, (TIME, FEATURES), free_axes=(0,)), path, input_name="x", opset=20)
    return path


def _input(batch, time=TIME):
    return torch.randn(batch, time, FEATURES, generator=torch.Generator().manual_seed(batch))


@pytest.mark.parametrize("kind", KINDS)
def test_file_answers_as_torch_for_every_batch_and_time_and_resets_linearly(kind, tmp_path):
    model = _random(kind)
    path = _written(model, tmp_path / "m.onnx")
    nodes = [node for node in onnx.load(path).graph.node if node.op_type == "GRU"]
    assert len(nodes) == model.gru.num_layers
    for node in nodes:
        assert {a.name: a.i for a in node.attribute if a.type == onnx.AttributeProto.INT}["linear_before_reset"] == 1
    run = open_runner(path, threads=1)
    for batch, time in ((1, TIME), (4, TIME), (7, 40)):
        x = _input(batch, time)
        np.testing.assert_allclose(run(x.numpy()), model(x).numpy(), rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_operator_is_torchs_layer_bit_by_bit(kind):
    layer = _random(kind).gru
    x = torch.randn(6, 7, FEATURES)
    for found, expected in zip(ExportedGru(layer)(x), layer(x), strict=True):
        assert torch.equal(found, expected)


def test_operators_shapes_are_known_without_running_it():
    arguments = [torch.randn(size) for size in ((4, 2, FEATURES), (2, 3 * HIDDEN, FEATURES), (2, 24, 8), (2, 48))]
    torch.library.opcheck(
        torch.ops.saga_peft.gru.default, tuple(arguments), test_utils=("test_schema", "test_faketensor")
    )


def test_model_keeps_its_own_layer_and_one_without_gru_is_itself():
    model, other = _random(), nn.Linear(3, 3)
    kept = model.gru
    assert isinstance(with_operators(model).gru, ExportedGru)
    assert isinstance(with_operators(kept), ExportedGru)
    assert model.gru is kept
    assert with_operators(other) is other


def test_layer_that_holds_an_adapter_is_left_to_it():
    adapted = get_peft_model(_random(), LoraConfig(r=2, target_modules="all")).eval()
    assert with_operators(adapted) is adapted


def test_layer_that_holds_an_adapter_is_traced_without_a_warning():
    adapted = get_peft_model(_random("plain"), LoraConfig(r=2, target_modules="all")).eval().requires_grad_(False)
    program, x = export_program(adapted.get_base_model(), (3, FEATURES)), _input(4, 3)
    torch.testing.assert_close(program.module()(x), adapted(x), rtol=0, atol=1e-6)


def test_first_state_is_refused():
    class Continued(Recurrent):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.gru(x, torch.ones(1, x.shape[0], HIDDEN))[1][0]

    with pytest.raises(ExportError, match="nn.GRU: must be called with a batch of sequences alone"):
        export_program(Continued(batch_first=True).eval(), (TIME, FEATURES))


def test_program_file_holds_the_operator_and_answers_alike(tmp_path):
    model, x = _random(), _input(4)
    program = export_program(model, (TIME, FEATURES), free_axes=(0,))
    ProgramTarget().write(program, tmp_path / "m.pt2", input_name="x", opset=0)
    np.testing.assert_allclose(ProgramTarget().open(tmp_path / "m.pt2")(x.numpy()), model(x).numpy(), atol=1e-6)


def test_int8_file_stores_every_gates_rows_with_a_scale_of_their_own(tmp_path):
    model, twin = _random("two ways"), _random("two ways", seed=1)
    with torch.no_grad():
        model.gru.weight_hh_l0[:HIDDEN] *= 1e-3  # a scale for all gates would leave nothing of these
    paths = [_written(each, tmp_path / f"{name}.onnx") for name, each in (("model", model), ("twin", twin))]
    ready, other = map(prepared, paths)
    nodes = weight_nodes(ready, other)
    assert sorted(node.elements for node in nodes) == [2 * 3 * HIDDEN * FEATURES, 2 * 3 * HIDDEN * HIDDEN]
    assert chosen_kind(nodes) == "dynamic"
    quantised = quantise_dynamic(ready, nodes)
    (tmp_path / "int8.onnx").write_bytes(quantised.SerializeToString())
    stored = {t.name: onnx.numpy_helper.to_array(t) for t in read_graph(tmp_path / "int8.onnx").graph.initializer}
    codes = {name: value for name, value in stored.items() if value.dtype == np.int8}
    assert len(codes) == 2
    for name, value in codes.items():
        assert (np.abs(value).max(axis=2) == 127).all()
        assert stored[name.replace(".int8", ".scale")].shape == (2, 3 * HIDDEN, 1)
    x = _input(7).numpy()
    expected, got = (open_runner(tmp_path / f"{name}.onnx", threads=1)(x) for name in ("model", "int8"))
    np.testing.assert_allclose(got, expected, rtol=0, atol=0.02 * np.ptp(expected))


def test_convolutions_still_have_one_scale_an_output_channel():
    values = np.random.default_rng(0).normal(size=(4, 3, 5)).astype(np.float32)
    graph = onnx.helper.make_graph([], "g", [], [], [onnx.numpy_helper.from_array(values, "w")])
    model = onnx.helper.make_model(graph)
    store_int8(model, {"w"})
    assert [list(t.dims) for t in model.graph.initializer] == [[4, 3, 5], [4, 1, 1]]
