"""Exported bundles answer as the adapted model does, and gates that fail leave nothing."""

import json

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from deploy import BundleRunner, export_model, load_manifest
from deploy.parity import BATCHES, TOLERANCE
from deploy.program import export_program, merged_copy
from deploy.session import open_session
from deploy.snippets import SNIPPETS
from deploy.targets.onnx import OnnxTarget
from shared_peft import METHODS, AdapterLayer
from shared_peft.errors import ExportError, MissingPackageError, UnknownNameError
from tests.deploy.conftest import PAIRS, adapted_toy
from tests.deploy.toys import CLASSES, ConvNet, trained_toy

pytestmark = pytest.mark.filterwarnings("ignore:.* runs beside dense layers only")

BUNDLE_FILES = {
    "README.md",
    "SHA256SUMS",
    "golden.safetensors",
    "manifest.json",
    "model.fixed.onnx",
    "model.onnx",
    "parity.json",
    *(snippet.file_name for _, snippet in SNIPPETS.items()),
}


@pytest.mark.parametrize(("network", "method"), PAIRS)
@pytest.mark.parametrize("batch", [*BATCHES, 32])
def test_exported_model_answers_like_the_adapted_one(bundle_of, network, method, batch):
    trained, bundle = bundle_of(network, method)
    inputs = torch.randn(batch, *trained.input_shape, generator=torch.Generator().manual_seed(batch))
    with torch.no_grad():
        expected = trained.model(inputs).numpy()
    np.testing.assert_allclose(BundleRunner(bundle).logits(inputs.numpy()), expected, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize(("network", "method"), [pair for pair in PAIRS if METHODS.get(pair[1]).mergeable])
def test_merged_graph_has_the_base_models_nodes(bundle_of, network, method):
    report = json.loads((bundle_of(network, method)[1] / "parity.json").read_text())
    assert report["graph"]["nodes"] == report["graph"]["base_nodes"] > 5
    assert report["graph"]["operations_added"] == {}


@pytest.mark.parametrize("method", [name for name, method in METHODS.items() if not method.mergeable])
def test_a_method_that_cannot_be_merged_exports_as_extra_nodes_and_the_bundle_says_so(bundle_of, method):
    trained, bundle = bundle_of("conv", method)
    base = export_program(ConvNet().eval(), trained.input_shape)
    parity, card = load_manifest(bundle).parity, (bundle / "README.md").read_text()
    report = json.loads((bundle / "parity.json").read_text())["graph"]
    added = report["nodes"] - report["base_nodes"]
    assert added == parity["nodes_more_than_base"] >= len(trained.model.get_layer_status())
    assert report["base_nodes"] == OnnxTarget().write(base, bundle.parent / "b", input_name="image", opset=20).nodes
    assert f"cannot be merged ({method}) and runs beside the weights: {added} nodes more" in card
    assert "merged into the weights" not in card
    assert any(isinstance(module, AdapterLayer) for module in merged_copy(trained.model).modules())


def test_card_of_a_merged_method_says_merged(bundle_of):
    assert "merged into the weights: the graph is the base model's" in (bundle_of()[1] / "README.md").read_text()


@pytest.mark.parametrize("method", ["flora", "lora_trf", "mpc_n"])
def test_adapter_changes_the_exported_answer(bundle_of, method):
    trained, bundle = bundle_of("conv", method)
    inputs = trained.examples[:4]
    with torch.no_grad(), trained.model.disable_adapter():
        plain = trained.model(inputs).numpy()
    assert np.abs(BundleRunner(bundle).logits(inputs.numpy()) - plain).max() > 100 * TOLERANCE


def test_bundle_holds_its_files_and_no_external_data(bundle_of):
    bundle = bundle_of()[1]
    assert {path.name for path in bundle.iterdir()} == BUNDLE_FILES
    assert [path.name for path in bundle.glob("*.data")] == []


def test_manifest_tells_how_to_feed_the_model(bundle_of):
    trained, bundle = bundle_of("sequence", "lora_tsd")
    manifest = load_manifest(bundle)
    assert manifest.kind == "imu_saga"
    assert (manifest.input.name, manifest.input.shape, manifest.input.dtype) == ("window", (24, 6), "float32")
    assert manifest.classes == CLASSES
    assert manifest.preprocessing == trained.preprocessing
    assert manifest.scores == {"accuracy": 0.75}
    assert manifest.opset == 20
    assert manifest.parity["max_abs_difference_randomised"] <= TOLERANCE
    assert manifest.files["model.onnx"].size_bytes == (bundle / "model.onnx").stat().st_size
    assert {"torch", "onnxruntime", "python"} <= manifest.versions.keys()


def test_checkpoint_path_is_cut_to_its_name(bundle_of):
    assert load_manifest(bundle_of()[1]).details["checkpoint"] == "base.safetensors"


def test_model_card_shows_classes_scores_and_files(bundle_of):
    card = (bundle_of()[1] / "README.md").read_text()
    for expected in ("`still`", "| accuracy | 0.75 |", "(batch, 3, 12, 12)", "model.onnx", "| image_size | 12 |"):
        assert expected in card


def test_parity_report_covers_trained_and_randomised_weights(bundle_of):
    report = json.loads((bundle_of("sequence", "lora_tsd")[1] / "parity.json").read_text())
    for weights in ("trained", "randomised"):
        measured = report[weights]
        assert [row["batch"] for row in measured["batches"]] == list(BATCHES)
        assert all(row["rows"] >= 28 - 6 for row in measured["batches"])
        assert all(row["max_abs_difference"] <= TOLERANCE for row in measured["batches"])
        assert measured["spread"] > 10 * TOLERANCE


def test_model_without_adapter_passes_through(tmp_path):
    torch.manual_seed(0)
    trained = trained_toy(ConvNet(), ConvNet)
    manifest = export_model(trained, tmp_path / "bundle")
    assert manifest.parity["nodes_more_than_base"] == 0
    assert not any(parameter.requires_grad is False for parameter in trained.model.parameters())


def test_exporting_leaves_the_trained_model_as_it_was(bundle_of):
    trained, fresh = bundle_of("sequence", "lora_tsd")[0], adapted_toy("sequence", "lora_tsd")
    for (name, mine), (_, other) in zip(
        trained.model.state_dict().items(), fresh.model.state_dict().items(), strict=True
    ):
        assert torch.equal(mine, other), name


class _ExtraStep(ConvNet):
    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return super().forward(image).tanh()


def test_extra_node_fails_the_gate_and_leaves_no_bundle(tmp_path, in_memory):
    torch.manual_seed(0)
    with pytest.raises(ExportError, match=r"base model's \d+ nodes, got \d+ \(tanh \+1\)"):
        export_model(trained_toy(_ExtraStep(), ConvNet), tmp_path / "bundle", target=in_memory)
    assert list(tmp_path.iterdir()) == []


class _Baked(nn.Module):
    """Answers another way in eager mode than in the traced program."""

    def __init__(self) -> None:
        super().__init__()
        self.net = ConvNet()

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.net(image) if torch.compiler.is_exporting() else self.net(image) + 0.01


def test_difference_above_tolerance_fails_the_gate_and_says_the_number(tmp_path, in_memory):
    torch.manual_seed(0)
    must = r"parity gate, trained weights, batch 1: max \|difference\| to PyTorch must be at most 0.0001, got 0.01\."
    with pytest.raises(ExportError, match=must):
        export_model(trained_toy(_Baked(), ConvNet), tmp_path / "bundle", target=in_memory)
    assert list(tmp_path.iterdir()) == []


class _FreshlyBuiltOnly(nn.Module):
    """Wrong only where its weight is not zero: a fault that fresh weights hide."""

    def __init__(self) -> None:
        super().__init__()
        self.net = ConvNet()
        self.gate = nn.Parameter(torch.zeros(1))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.net(image) + self.gate * (1.0 if torch.compiler.is_exporting() else 1.5)


def test_fault_hidden_by_fresh_weights_is_found_on_randomised_ones(tmp_path, in_memory):
    torch.manual_seed(0)
    with pytest.raises(ExportError, match="parity gate, randomised weights"):
        export_model(trained_toy(_FreshlyBuiltOnly(), _FreshlyBuiltOnly), tmp_path / "bundle", target=in_memory)


class _BatchBranch(ConvNet):
    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return super().forward(image) * (2.0 if image.shape[0] > 5 else 1.0)


def test_branch_on_the_batch_size_is_refused(tmp_path, in_memory):
    torch.manual_seed(0)
    with pytest.raises(ExportError, match="torch.export must trace it with a free batch"):
        export_model(trained_toy(_BatchBranch(), ConvNet), tmp_path / "bundle", target=in_memory)


class _BatchAsNumber(ConvNet):
    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return super().forward(image) + torch.zeros(len(image), 1)


def test_batch_read_with_len_is_refused_with_the_remedy(tmp_path, in_memory):
    torch.manual_seed(0)
    with pytest.raises(ExportError, match=r"specialized it to be a constant.*x\.shape\[0\] for len\(x\)"):
        export_model(trained_toy(_BatchAsNumber(), ConvNet), tmp_path / "bundle", target=in_memory)


def test_existing_folder_is_refused(tmp_path):
    with pytest.raises(ExportError, match="must be a new folder"):
        export_model(trained_toy(ConvNet(), ConvNet), tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"classes": CLASSES[:3]}, r"logits must have shape \(1, 3\), one a class, got \(1, 5\)"),
        ({"examples": torch.zeros(0, 3, 12, 12)}, r"examples must have shape \(n, 3, 12, 12\)"),
        ({"examples": torch.zeros(2, 3, 8, 8)}, r"got \(2, 3, 8, 8\)"),
    ],
)
def test_run_that_contradicts_itself_is_refused(tmp_path, changes, message):
    with pytest.raises(ExportError, match=message):
        export_model(trained_toy(ConvNet(), ConvNet, **changes), tmp_path / "bundle")


def test_model_in_training_mode_is_refused(tmp_path):
    trained = trained_toy(ConvNet(), ConvNet)
    trained.model.train()
    with pytest.raises(ExportError, match="must be in eval mode"):
        export_model(trained, tmp_path / "bundle")


def test_local_path_in_a_class_name_fails_the_gate(tmp_path, in_memory):
    classes = ("/home/me/still", *CLASSES[1:])
    torch.manual_seed(0)
    with pytest.raises(ExportError, match="must hold no path of the machine.*/home/me/still"):
        export_model(trained_toy(ConvNet(), ConvNet, classes=classes), tmp_path / "bundle", target=in_memory)
    assert list(tmp_path.iterdir()) == []


def test_unknown_target_lists_the_known_ones(tmp_path):
    with pytest.raises(UnknownNameError, match="name must be one of executorch, onnx, program, got 'coreml'"):
        export_model(trained_toy(ConvNet(), ConvNet), tmp_path / "bundle", target="coreml")


@pytest.mark.parametrize("package", ["onnx", "onnxscript", "onnxruntime"])
def test_missing_package_names_the_extra(tmp_path, monkeypatch, package):
    monkeypatch.setitem(__import__("sys").modules, package, None)
    with pytest.raises(MissingPackageError, match=rf"needs the package {package}, got .*saga-peft\[deploy\]"):
        export_model(trained_toy(ConvNet(), ConvNet), tmp_path / "bundle")
    assert list(tmp_path.iterdir()) == []


def test_same_model_gives_the_same_bytes_twice(bundle_of, tmp_path):
    trained, bundle = adapted_toy("conv", "lora"), bundle_of("conv", "lora")[1]
    program = export_program(merged_copy(trained.model), trained.input_shape)
    OnnxTarget().write(program, tmp_path / "again.onnx", input_name="image", opset=20)
    assert (tmp_path / "again.onnx").read_bytes() == (bundle / "model.onnx").read_bytes()


def test_model_file_holds_no_debugging_information(bundle_of):
    model = onnx.load(bundle_of("sequence", "lora_tsd")[1] / "model.onnx")
    graph = model.graph
    assert len(graph.value_info) == len(graph.metadata_props) == len(model.metadata_props) == 0
    for item in (*graph.node, *graph.input, *graph.output, *graph.initializer):
        assert len(item.metadata_props) == 0
        assert item.doc_string == ""


def test_batch_is_the_only_free_dimension(bundle_of):
    session = open_session(bundle_of("sequence", "lora_tsd")[1] / "model.onnx")
    assert session.get_inputs()[0].shape == ["batch", 24, 6]
    assert session.get_outputs()[0].shape == ["batch", len(CLASSES)]
