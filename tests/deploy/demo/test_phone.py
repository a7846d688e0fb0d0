"""The phone's chapter says what the bundles it wrote say."""

import pytest
import torch

from deploy import load_manifest
from deploy.demo import phone
from shared_peft.training import LabelledRows
from tests.deploy.nets import CLASSES, SAMPLES, trained_net


@pytest.mark.parametrize("own", [False, True])
def test_every_run_is_a_bundle_and_a_measured_one_shows_what_its_int8_file_saves_and_costs(tmp_path, monkeypatch, own):
    trained = trained_net("table")
    monkeypatch.setattr(phone, "load_trained", lambda run: trained)
    rows = torch.randn(40, SAMPLES, 6, generator=torch.Generator().manual_seed(0))
    wrong = LabelledRows(rows, (trained.model(rows).argmax(1) + 1) % len(CLASSES))
    runs = [tmp_path / "plain", tmp_path / "measured"][1 - own :]
    chapter = phone.run_phone(runs, {runs[-1]: None if own else lambda: wrong}, tmp_path / "bundles")
    bundles, files = (item.rows for item in chapter.items)
    manifests = [load_manifest(tmp_path / "bundles" / run.name) for run in runs]
    assert [row[0] for row in bundles] == [run.name for run in runs]
    assert ["int8" in manifest.variants for manifest in manifests] == [run == runs[-1] for run in runs]
    int8 = manifests[-1].variants["int8"]
    assert [row[0] for row in files] == [f"measured, {kind}" for kind in ("fp32", "fixed", "int8")]
    sizes = [manifests[-1].files[name].size_bytes for name in ("model.onnx", int8.file)]
    assert files[-1][1:3] == (f"{sizes[1] / 1e3:.0f}", f"{100 * sizes[1] / sizes[0]:.0f} %")
    assert files[0][3] == f"{int8.measured['accuracy_fp32']:.3f}" == ("1.000" if own else "0.000")
    assert files[-1][3] == f"{int8.measured['accuracy']:.3f}"
    assert all(float(row[4]) > 0 and float(row[5]) > 0 for row in files)
