"""Weights swapped into one converted graph give the file that a conversion of their own gives, and hide no fault."""

import pytest
import torch
from torch import nn

from deploy import bundle, conversion, export_model
from deploy.conversion import Conversion
from deploy.program import exchange_weights, export_program, graph_digest, merged_copy
from deploy.randomise import randomised_copy
from deploy.targets.onnx import OnnxTarget
from shared_peft.errors import ExportError
from tests.deploy.conftest import adapted_toy
from tests.deploy.toys import ConvNet, trained_toy


@pytest.fixture
def conversions(monkeypatch):
    """The programs that torch's exporter really converted."""
    seen, convert = [], conversion._convert

    def counted(program, input_name, opset):
        seen.append(program)
        return convert(program, input_name, opset)

    monkeypatch.setattr(conversion, "_convert", counted)
    return seen


def _bytes(converter, program):
    return converter.model(program, input_name="x", opset=20).SerializeToString(deterministic=True)


@pytest.mark.parametrize("network", ["conv", "sequence"])
def test_swapped_weights_give_the_bytes_of_a_conversion_of_their_own(network, conversions):
    trained, shared = adapted_toy(network, "lora_tsd"), Conversion()
    generator = torch.Generator().manual_seed(0)
    first = export_program(merged_copy(trained.model), trained.input_shape)
    twin = merged_copy(randomised_copy(trained.model, trained.examples, generator=generator))
    second = export_program(twin, trained.input_shape)
    before = _bytes(shared, first)
    swapped = _bytes(shared, second)
    assert conversions == [first]
    assert swapped == _bytes(Conversion(), second) != before
    assert before == _bytes(Conversion(), first) == _bytes(shared, first)


@pytest.mark.parametrize("network", ["conv", "sequence"])
def test_program_with_exchanged_weights_is_that_of_the_other_model(network):
    trained = adapted_toy(network, "lora_tsd")
    program = export_program(merged_copy(trained.model), trained.input_shape)
    before = _bytes(Conversion(), program)
    generator = torch.Generator().manual_seed(0)
    twin = merged_copy(randomised_copy(trained.model, trained.examples, generator=generator))
    exchange_weights(program, twin)
    assert before != _bytes(Conversion(), program) == _bytes(Conversion(), export_program(twin, trained.input_shape))


class _AnotherConvNet(ConvNet):
    """The same operations under another name."""


@pytest.mark.parametrize(("base", "traces"), [(ConvNet, 1), (_AnotherConvNet, 2)])
def test_a_model_and_its_gates_take_one_conversion_and_two_files(tmp_path, conversions, monkeypatch, base, traces):
    torch.manual_seed(0)
    written, write, traced, trace = [], OnnxTarget.write, [], bundle.export_program
    monkeypatch.setattr(
        bundle, "export_program", lambda *given, **named: traced.append(given) or trace(*given, **named)
    )

    def counted(self, program, path, *, input_name, opset):
        written.append(path)
        return write(self, program, path, input_name=input_name, opset=opset)

    monkeypatch.setattr(OnnxTarget, "write", counted)
    export_model(trained_toy(ConvNet(), base), tmp_path / "bundle")
    assert len(traced) == traces, "the base is traced only where it is not seen to run the same code"
    assert len(conversions) == 1
    assert len(written) == 2, "the base is not written where its program is the merged model's"


class _Scaled(nn.Module):
    def __init__(self, factor: float = 2.0, width: int = 3, fixed: float = 1.0) -> None:
        super().__init__()
        self.layer, self.factor = nn.Linear(4, width), factor
        self.register_buffer("fixed", torch.full((width,), fixed), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x) * self.factor + self.fixed


def test_digest_is_that_of_the_graph_and_not_of_the_weights():
    def digest(model, shape=(4,)):
        return graph_digest(export_program(model.eval(), shape))

    reference = digest(_Scaled())
    assert digest(_Scaled()) == digest(_Scaled(fixed=3.0)) == reference
    others = [digest(_Scaled(factor=3.0)), digest(_Scaled(width=2)), digest(_Scaled(), (5, 4)), digest(_Scaled().layer)]
    assert len({reference, *others}) == 5


def test_a_buffer_outside_the_state_is_swapped_too():
    shared = Conversion()
    one, other = (export_program(_Scaled(fixed=value).eval(), (4,)) for value in (1.0, 3.0))
    _bytes(shared, one)
    assert _bytes(shared, other) == _bytes(Conversion(), other)


class _Gated(nn.Module):
    """A network whose gate is zero until it is trained."""

    def __init__(self) -> None:
        super().__init__()
        self.net, self.gate = ConvNet(), nn.Parameter(torch.zeros(5))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.net(image) + self.gate


def _plant(monkeypatch, damage):
    convert = conversion._convert

    def damaged(program, input_name, opset):
        converted = convert(program, input_name, opset)
        damage(converted.model.graph)
        return converted

    monkeypatch.setattr(conversion, "_convert", damaged)


def test_a_weight_the_exporter_baked_in_is_found_on_randomised_weights(tmp_path, monkeypatch):
    def bake(graph):
        graph.initializers["gate"].name = "baked"

    _plant(monkeypatch, bake)
    torch.manual_seed(0)
    with pytest.raises(ExportError, match="parity gate, randomised weights"):
        export_model(trained_toy(_Gated(), _Gated), tmp_path / "bundle")
    assert list(tmp_path.iterdir()) == []


def test_an_operation_the_exporter_mistook_is_found_on_the_runs_own_weights(tmp_path, monkeypatch):
    def mistake(graph):
        next(node for node in graph if node.op_type == "Relu").op_type = "Sigmoid"

    _plant(monkeypatch, mistake)
    torch.manual_seed(0)
    with pytest.raises(ExportError, match="parity gate, trained weights"):
        export_model(trained_toy(ConvNet(), ConvNet), tmp_path / "bundle")
    assert list(tmp_path.iterdir()) == []
