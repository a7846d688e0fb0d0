"""The ONNX target: the measured traps of torch's exporter, one test each."""

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from deploy.program import export_program, merged_copy
from deploy.randomise import randomised_copy
from deploy.session import open_session
from deploy.targets.onnx import OnnxTarget
from shared_peft.errors import ExportError
from tests.deploy.toys import ConvNet, SequenceNet


def _write(model, shape, path, opset=20, name="x"):
    return OnnxTarget().write(export_program(merged_copy(model), shape), path, input_name=name, opset=opset)


def _linear():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))


@pytest.mark.parametrize("opset", [18, 19, 20])
def test_file_has_the_opset_asked_for(tmp_path, opset):
    assert _write(_linear(), (4,), tmp_path / "m.onnx", opset).opset == opset
    model = onnx.load(tmp_path / "m.onnx")
    assert {entry.domain: entry.version for entry in model.opset_import} == {"": opset}


def test_opset_the_exporter_raises_silently_is_refused(tmp_path):
    torch.manual_seed(0)
    with pytest.raises(ExportError, match="--opset: the exporter writes opset 18 here, got 11. Ask for --opset 18"):
        _write(ConvNet(), (3, 12, 12), tmp_path / "m.onnx", opset=11)
    assert list(tmp_path.iterdir()) == []


def test_weights_are_inside_the_one_file(tmp_path):
    large = nn.Sequential(nn.Linear(512, 512), nn.Linear(512, 3))
    _write(large, (512,), tmp_path / "m.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["m.onnx"]
    assert (tmp_path / "m.onnx").stat().st_size > 512 * 512 * 4


@pytest.mark.parametrize(
    "make",
    [
        lambda: nn.MultiheadAttention(16, 4, batch_first=True),
        lambda: nn.TransformerEncoderLayer(16, 4, 32, batch_first=True),
        lambda: nn.TransformerEncoderLayer(16, 4, 32, batch_first=True, norm_first=True, activation="gelu"),
    ],
    ids=["attention", "encoder layer", "pre-norm encoder layer"],
)
def test_attention_keeps_its_batch_dynamic(tmp_path, make):
    class Head(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.head = make(), nn.Linear(16, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            attends = isinstance(self.layer, nn.MultiheadAttention)
            return self.head((self.layer(x, x, x)[0] if attends else self.layer(x)).mean(1))

    torch.manual_seed(0)
    model = Head().eval()
    _write(model, (5, 16), tmp_path / "m.onnx")
    run = OnnxTarget().open(tmp_path / "m.onnx")
    for batch in (1, 4, 7):
        x = torch.randn(batch, 5, 16)
        with torch.no_grad():
            np.testing.assert_allclose(run(x.numpy()), model(x).numpy(), rtol=0, atol=1e-5)


def test_baked_batch_is_refused(tmp_path):
    program = torch.export.export(_linear().eval(), (torch.zeros(3, 4),))
    with pytest.raises(ExportError, match=r"x: the first dimension alone must be free, got \[3, 4\]"):
        OnnxTarget().write(program, tmp_path / "m.onnx", input_name="x", opset=20)


def test_no_local_path_in_the_file(tmp_path):
    _write(SequenceNet(), (24, 6), tmp_path / "m.onnx")
    content = (tmp_path / "m.onnx").read_bytes()
    for trace in (b"toys.py", b"site-packages", b"torch/nn", b'File "', str(tmp_path).encode()):
        assert trace not in content


def test_operation_without_an_onnx_form_is_refused(tmp_path):
    class Special(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.special.bessel_j0(x)

    with pytest.raises(ExportError, match="every operation must have an ONNX form, got .*bessel_j0"):
        _write(Special(), (4,), tmp_path / "m.onnx")


def test_batch_norm_is_folded_and_still_right(tmp_path):
    model = randomised_copy(ConvNet(), torch.randn(6, 3, 12, 12), generator=torch.Generator().manual_seed(5))
    written = _write(model, (3, 12, 12), tmp_path / "m.onnx")
    assert written.operations["BatchNormalization"] == 0
    x = torch.randn(4, 3, 12, 12)
    with torch.no_grad():
        np.testing.assert_allclose(OnnxTarget().open(tmp_path / "m.onnx")(x.numpy()), model(x), rtol=0, atol=1e-5)


def test_file_that_is_no_model_is_refused(tmp_path):
    (tmp_path / "m.onnx").write_bytes(b"\x08\x07nonsense")
    with pytest.raises(ExportError, match="must be an ONNX file that onnxruntime loads"):
        open_session(tmp_path / "m.onnx")
