"""Further files of a bundle: small, alike in their answers, refused with the number that failed."""

import shutil

import numpy as np
import onnx
import pytest
import torch

from deploy import BundleError, BundleRunner, export_model, load_manifest, verify_bundle
from deploy.commands import COMMANDS
from deploy.graph_edit import operators
from deploy.layout import VariantEntry
from deploy.rows import compare_rows
from deploy.session import open_runner
from deploy.variant_files import check_size, check_variant
from deploy.variants import VARIANTS, VariantOptions
from shared_peft.command import run_commands
from shared_peft.errors import ConfigError, ExportError, UnknownNameError
from shared_peft.training import LabelledRows, RunFolder
from tests.deploy.nets import NETS, trained_net
from tests.deploy.toys import ConvNet, trained_toy

ALL = VariantOptions(int8="auto", fp16=True, ort=True, max_drop=10)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """Return (trained model, bundle with every variant) by name; each is exported once."""
    made = {}

    def make(name):
        if name not in made:
            trained, out = trained_net(name), tmp_path_factory.mktemp(name) / "bundle"
            export_model(trained, out, variants=ALL)
            made[name] = trained, out
        return made[name]

    return make


@pytest.mark.parametrize("name", NETS)
def test_every_registered_variant_is_in_the_bundle_and_hashed(bundle, name):
    manifest = verify_bundle(bundle(name)[1])
    assert set(manifest.variants) == set(VARIANTS.names())
    assert {entry.file for entry in manifest.variants.values()} <= manifest.files.keys()


@pytest.mark.parametrize("name", NETS)
def test_int8_takes_at_most_28_percent_of_fp32(bundle, name):
    files = load_manifest(bundle(name)[1]).files
    assert files["model.int8.onnx"].size_bytes <= 0.28 * files["model.onnx"].size_bytes
    assert files["model.fp16.onnx"].size_bytes <= 0.52 * files["model.onnx"].size_bytes


@pytest.mark.parametrize(
    ("name", "present", "absent"),
    [("conv", "QuantizeLinear", "MatMulInteger"), ("table", "MatMulInteger", "QuantizeLinear")],
)
def test_auto_chooses_static_for_convolutions_and_dynamic_for_linear_layers(bundle, name, present, absent):
    found = operators(onnx.load(bundle(name)[1] / "model.int8.onnx"))
    assert found[present] > 0
    assert found[absent] == 0


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("variant", VARIANTS.names())
def test_measured_numbers_are_those_of_the_file_run_again(bundle, name, variant):
    trained, path = bundle(name)
    measured = load_manifest(path).variants[variant].measured
    rows = trained.validation()
    kept = [row for row in range(160) if row % 4]  # every fourth one calibrated
    kept = kept[:: len(kept) // 32] if "accuracy" not in measured else kept
    inputs, labels = rows.inputs[kept].numpy(), rows.labels[kept].numpy()
    first, second = BundleRunner(path, threads=1), BundleRunner(path, threads=1, variant=variant)
    expected, got = (np.concatenate([run.logits(row[None]) for row in inputs]) for run in (first, second))
    assert measured["rows"] == len(kept)
    assert measured["top1_agreement"] == np.mean(expected.argmax(1) == got.argmax(1))
    assert measured["max_abs_difference"] == pytest.approx(np.abs(expected - got).max(), abs=1e-4, rel=0.05)
    if "accuracy" in measured:
        lost = 100 * (np.mean(expected.argmax(1) == labels) - np.mean(got.argmax(1) == labels))
        assert measured["drop_points"] == pytest.approx(lost)


@pytest.mark.parametrize("name", NETS)
def test_fixed_file_answers_alike_one_row_at_a_time(bundle, name):
    trained, path = bundle(name)
    rows = trained.validation().inputs[:5].numpy()
    one = open_runner(path / "model.onnx", threads=1)
    expected = np.concatenate([one(row[None]) for row in rows])
    got = BundleRunner(path, threads=1, variant="fixed").logits(rows)
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", NETS)
def test_fixed_file_has_no_free_size_and_computes_none(bundle, name):
    model = onnx.load(bundle(name)[1] / "model.fixed.onnx")
    values = (*model.graph.input, *model.graph.output)
    sizes = [[dim.dim_value for dim in value.type.tensor_type.shape.dim] for value in values]
    assert sizes == [[1, *NETS[name][1]], [1, 3]]
    assert operators(model)["Shape"] == 0
    assert {entry.domain for entry in model.opset_import} == {""}


@pytest.mark.parametrize("name", NETS)
def test_ort_file_is_onnxruntimes_own_format_of_the_int8_file(bundle, name):
    trained, path = bundle(name)
    assert (path / "model.ort").read_bytes()[4:8] == b"ORTM"
    rows = trained.examples.numpy()
    int8, ort = (BundleRunner(path, threads=1, variant=name).logits(rows) for name in ("int8", "ort"))
    np.testing.assert_allclose(ort, int8, rtol=0, atol=0.02 * np.ptp(int8))
    assert load_manifest(path).variants["ort"].precision == "int8"


def test_card_shows_scores_before_and_after(bundle):
    path = bundle("conv")[1]
    measured = load_manifest(path).variants["int8"].measured
    row = next(
        line for line in (path / "README.md").read_text().splitlines() if line.startswith("| model.int8.onnx | int8")
    )
    cells = [cell.strip() for cell in row.split("|")]
    assert cells[9:12] == [f"{measured[key]:.4g}" for key in ("accuracy_fp32", "accuracy", "drop_points")]


def test_check_runs_the_golden_sample_through_every_file(bundle, capsys):
    assert run_commands("deploy", COMMANDS, ["check", str(bundle("table")[1])]) == 0
    told = capsys.readouterr().out
    for name in ("model.onnx", "model.fixed.onnx", "model.fp16.onnx", "model.int8.onnx", "model.ort"):
        assert f"{name}: 8 rows" in told


def test_variant_file_that_is_missing_is_refused(bundle, tmp_path):
    copy = shutil.copytree(bundle("conv")[1], tmp_path / "copy")
    (copy / "model.int8.onnx").unlink()
    with pytest.raises(BundleError, match="model.int8.onnx: must be a file in the bundle's folder"):
        BundleRunner(copy)


def test_unknown_variant_lists_the_known_ones(bundle):
    with pytest.raises(UnknownNameError, match="variant must be one of fixed, fp16, int8, ort.*got 'int4'"):
        BundleRunner(bundle("conv")[1], variant="int4")


def _entry(precision, **measured):
    defaults = {"rows": 100.0, "max_abs_difference": 0.5, "top1_agreement": 0.98}
    return VariantEntry("model.x.onnx", precision, 0, "onnxruntime", {**defaults, **measured})


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (
            _entry("int8", drop_points=1.5),
            r"int8 gate, model.x.onnx: accuracy drop on 100 rows must be at most 1 points, got 1.50",
        ),
        (
            _entry("fp16", top1_agreement=0.9),
            "disagreement with the model file on 100 rows must be at most 1 points, got 10.00",
        ),
        (_entry("fp32"), r"at most 0.0001 with the same first class on 100 rows, got 0.5, 98.0 % agreement"),
        (_entry("int8", drop_points=0.0, max_abs_difference=float("inf")), "logits must be finite on 100 rows"),
    ],
)
def test_failed_gate_says_which_number_failed(entry, message):
    with pytest.raises(ExportError, match=message):
        check_variant("int8", entry, 1.0)


@pytest.mark.parametrize(
    "entry", [_entry("int8", drop_points=1.0), _entry("fp16", top1_agreement=0.99), _entry("int8", drop_points=-3.0)]
)
def test_gate_passes_at_its_bound(entry):
    check_variant("int8", entry, 1.0)


def test_size_budget_is_the_smallest_files():
    check_size({"model.onnx": 4_000_000, "model.int8.onnx": 1_000_000}, 1.0)
    with pytest.raises(ExportError, match="size gate, model.int8.onnx: .* at most 0.9 MB, got 1.000"):
        check_size({"model.onnx": 4_000_000, "model.int8.onnx": 1_000_000}, 0.9)


def test_accuracy_lost_leaves_no_bundle(tmp_path, monkeypatch):
    written = VARIANTS.get("int8").write

    def spoilt(self, material, path):
        precision = written(self, material, path)
        model = onnx.load(path)
        bias = next(tensor for tensor in model.graph.initializer if list(tensor.dims) == [3] and tensor.data_type == 1)
        bias.CopyFrom(onnx.numpy_helper.from_array(np.array([1e3, 0, 0], np.float32), bias.name))
        path.write_bytes(model.SerializeToString())
        return precision

    monkeypatch.setattr(VARIANTS.get("int8"), "write", spoilt)
    with pytest.raises(ExportError, match=r"int8 gate, model.int8.onnx: accuracy drop on 120 rows must be at most 1 p"):
        export_model(trained_net("table"), tmp_path / "bundle", variants=VariantOptions(int8="auto", fixed=False))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("validation", "message"),
    [
        (None, "int8: must be measured on the run's validation data, got a run without any"),
        (
            lambda: LabelledRows(torch.zeros(9, 3, 12, 11), torch.zeros(9).long()),
            r"inputs must have shape \(n, 3, 12, 12\)",
        ),
        (lambda: LabelledRows(torch.zeros(4, 3, 12, 12), torch.zeros(4).long()), "with n of 8 or more"),
        (lambda: LabelledRows(torch.zeros(9, 3, 12, 12), torch.full((9,), 5)), "9 int64 numbers from 0 to 4"),
        (lambda: LabelledRows(torch.zeros(9, 3, 12, 12), torch.zeros(9)), "got torch.float32"),
    ],
)
def test_int8_without_usable_validation_data_is_refused(validation, message):
    from deploy.rows import rows_of

    with pytest.raises(ExportError, match=message):
        rows_of(trained_toy(ConvNet(), ConvNet, validation=validation), labelled=True)


def test_variants_of_a_target_that_is_no_onnx_are_refused(tmp_path, in_memory):
    options = VariantOptions(int8="auto", fp16=True)
    with pytest.raises(ExportError, match=r"variants are made from an .onnx file alone, got fp16, int8"):
        export_model(trained_toy(ConvNet(), ConvNet), tmp_path / "bundle", target=in_memory, variants=options)


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"max_size_mb": 0}, "--max-size: must be positive"), ({"max_drop": -1}, "--max-drop: must be in")],
)
def test_budget_that_cannot_be_is_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        VariantOptions(**changes)


def test_compared_rows_are_counted_by_hand():
    expected = np.array([[1.0, 0], [1, 0], [0, 1], [0, 1]])
    got = np.array([[1.0, 0], [0, 1], [0, 1.5], [0, 1]])
    found = compare_rows(expected, got, np.array([0, 0, 1, 0]))
    assert found == {
        "rows": 4,
        "max_abs_difference": 1,
        "top1_agreement": 0.75,
        "accuracy_fp32": 0.75,
        "accuracy": 0.5,
        "drop_points": 25,
    }


def test_command_line_asks_for_variants_and_names_the_number_that_failed(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("deploy.commands.export.load_trained", lambda path: trained_net("table"))
    RunFolder.create(tmp_path / "run", "imu_saga.finetune", {})
    arguments = ["export", str(tmp_path / "run"), "--out", str(tmp_path / "b"), "--int8", "auto", "--max-size", "0.01"]
    assert run_commands("deploy", COMMANDS, arguments) == 2
    told = capsys.readouterr()
    assert "wrote model.int8.onnx: int8, 2" in told.out
    assert "size gate, model.int8.onnx" in told.err
    assert not (tmp_path / "b").exists()
