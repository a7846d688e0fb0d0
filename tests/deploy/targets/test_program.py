"""PyTorch's own format: parity through every gate, no local path, and never opened from a bundle unasked."""

import re

import numpy as np
import pytest
import torch

from deploy import BundleError, BundleRunner, export_model
from deploy.manifest import verify_bundle
from deploy.parity import BATCHES, TOLERANCE
from deploy.program import export_program, merged_copy
from deploy.targets.program import ProgramTarget
from tests.deploy.conftest import adapted_toy
from tests.deploy.toys import ConvNet


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A trained toy with its bundle of the target."""
    trained, out = adapted_toy("sequence", "lora_tsd"), tmp_path_factory.mktemp("program") / "bundle"
    export_model(trained, out, target="program")
    return trained, out


@pytest.mark.parametrize("batch", BATCHES)
def test_reloaded_program_answers_like_the_adapted_model(exported, batch):
    trained, bundle = exported
    inputs = torch.randn(batch, *trained.input_shape, generator=torch.Generator().manual_seed(batch))
    with torch.no_grad():
        expected = trained.model(inputs).numpy()
    got = ProgramTarget().open(bundle / "model.pt2")(inputs.numpy())
    np.testing.assert_allclose(got, expected, rtol=0, atol=TOLERANCE)


def test_bundle_says_what_it_is_and_passed_the_gates(exported):
    manifest = verify_bundle(exported[1])
    assert (manifest.target, manifest.model_file, manifest.opset) == ("program", "model.pt2", 0)
    assert manifest.nodes > 20
    assert manifest.parity["nodes_more_than_base"] == 0
    assert manifest.parity["max_abs_difference_randomised"] <= TOLERANCE
    assert manifest.variants == {}


def test_no_local_path_in_the_file_and_the_program_keeps_its_traces(tmp_path):
    program = export_program(merged_copy(ConvNet()), (3, 12, 12))
    before = [dict(node.meta) for node in program.graph.nodes]
    assert any("toys.py" in str(meta.get("stack_trace")) for meta in before)
    ProgramTarget().write(program, tmp_path / "m.pt2", input_name="x", opset=20)
    content = (tmp_path / "m.pt2").read_bytes()
    for trace in (b"toys.py", b"site-packages", b'File "', str(tmp_path).encode()):
        assert trace not in content
    assert [dict(node.meta) for node in program.graph.nodes] == before


def test_bundle_runner_opens_no_program_from_a_bundle(exported, monkeypatch):
    monkeypatch.setattr(torch.export, "load", lambda *_: pytest.fail("a program of a bundle was loaded"))
    with pytest.raises(BundleError, match="model.pt2: must be an ONNX file that onnxruntime loads"):
        BundleRunner(exported[1])


@pytest.mark.parametrize("content", [b"", b"not a program", None])
def test_file_that_is_no_program_is_refused(tmp_path, content):
    if content is not None:
        (tmp_path / "m.pt2").write_bytes(content)
    with pytest.raises(BundleError, match=re.escape("m.pt2: must be a program PyTorch loads")):
        ProgramTarget().open(tmp_path / "m.pt2")
