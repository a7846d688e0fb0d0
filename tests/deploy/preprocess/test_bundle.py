"""Bundles with preprocessing inside: they take files of any size, and samples in the sensor's units."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from deploy import BundleRunner, export_model
from deploy.commands import COMMANDS
from deploy.golden import read_golden
from deploy.manifest import verify_bundle
from deploy.parity import TOLERANCE
from deploy.preprocess import in_graph
from deploy.program import merged_copy
from deploy.variants import VariantOptions
from deploy.web import build_site
from imu_saga.streaming.classifier import StreamOptions
from imu_saga.streaming.source import SourceOptions
from shared_peft.command import run_commands
from shared_peft.errors import DataError, ExportError
from shared_peft.training import RunFolder, TrainedModel
from tests.deploy.conftest import adapted_toy
from vision import transforms
from vision.backbones.family import DataConfig
from vision.datasets.decode import read_image

DATA = DataConfig(12, (0.5, 0.4, 0.3), (0.25, 0.25, 0.2), "bicubic", 0.875, "center")
PLAIN = VariantOptions(fixed=False)


def _image_run() -> TrainedModel:
    from dataclasses import replace

    levels = torch.randint(0, 256, (9, 3, 12, 12), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    toy = adapted_toy("conv", "flora")
    described = transforms.describe_preprocessing(DATA)
    return replace(toy, preprocessing=described, examples=transforms.normalise(levels, DATA))


def _motion_run() -> TrainedModel:
    from dataclasses import replace

    channels = ["acc_x", "acc_y", "acc_z", "gyro_x", "gyro_y", "gyro_z"]
    units = ["m/s^2"] * 3 + ["rad/s"] * 3
    described = {"rate_hz": 20.0, "seconds": 1.2, "samples": 24, "channels": channels, "units": units}
    return replace(adapted_toy("sequence", "lora"), preprocessing={**described, "gravity": "kept"})


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> tuple[TrainedModel, Path]:
    """An image model and its bundle of raw pixels, with the fixed-batch file."""
    out = tmp_path_factory.mktemp("images") / "bundle"
    run = _image_run()
    export_model(in_graph(run), out)
    return run, out


@pytest.fixture(scope="module")
def motion(tmp_path_factory) -> tuple[TrainedModel, Path]:
    """A motion model and its bundle in g and deg/s."""
    out = tmp_path_factory.mktemp("motion") / "bundle"
    run = _motion_run()
    export_model(in_graph(run, ["acc=g", "gyro=deg/s"]), out, variants=PLAIN)
    return run, out


def test_image_bundle_takes_uint8_of_any_size(images):
    manifest = verify_bundle(images[1])
    assert manifest.input.dtype == "uint8"
    assert manifest.input.words == "(batch, any, any, 3)"
    assert manifest.parity["nodes_more_than_base"] == 0
    assert read_golden(images[1], manifest).inputs.dtype == np.uint8
    assert "uint8, (batch, any, any, 3); any batch" in (images[1] / "README.md").read_text()


@pytest.mark.parametrize("variant", ["", "fixed"])
@pytest.mark.parametrize("size", [(12, 12), (60, 31), (17, 90)])
def test_image_bundle_answers_like_the_adapted_model_behind_its_preprocessing(images, size, variant):
    run, bundle = images
    pixels = torch.randint(0, 256, (3, *size, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = in_graph(run).model(pixels).numpy()
    runner = BundleRunner(bundle, threads=1, variant=variant)
    np.testing.assert_allclose(runner.logits(pixels.numpy()), expected, rtol=0, atol=TOLERANCE)
    assert runner.check_golden().max_abs_difference <= TOLERANCE


def test_real_files_of_any_size_answer_as_the_run_does(images, tmp_path, shared_root):
    run, bundle = images
    sources = sorted((shared_root / "data/vision/tiny_imagenet_10/test").rglob("*.jp*g"))[::100]
    paths = []
    for number, source in enumerate(sources):
        paths.append(tmp_path / f"{number}.png")
        Image.open(source).convert("L" if number == 1 else "RGB").crop((0, 0, 64 - 7 * number, 60)).save(paths[-1])
    answers = BundleRunner(bundle, threads=1).predict_images(paths)
    prepared = torch.stack([transforms.fit_image(read_image(path), DATA) for path in paths])
    with torch.no_grad():
        expected = run.model(transforms.normalise(prepared, DATA)).softmax(-1).numpy()
    assert len(answers) == len(paths) >= 5
    np.testing.assert_allclose([answer.probabilities for answer in answers], expected, rtol=0, atol=0.02)


def test_pixels_that_are_floats_are_refused(images):
    runner = BundleRunner(images[1], threads=1)
    with pytest.raises(DataError, match="image: must be uint8, got float32. Give pixels as they were decoded"):
        runner.predict(np.zeros((1, 20, 20, 3), np.float32))
    with pytest.raises(DataError, match=r"must have shape \(batch, any, any, 3\)"):
        runner.predict(np.zeros((1, 20, 20, 4), np.uint8))


def test_merging_reaches_the_adapter_behind_the_preprocessing(images):
    wrapped = in_graph(images[0])
    merged = merged_copy(wrapped.model)
    with torch.no_grad():
        difference = (merged(wrapped.examples) - wrapped.model(wrapped.examples)).abs().max()
    assert difference <= 1e-5
    assert not any("lora" in name or "flora" in name for name, _ in merged.named_parameters())


def test_motion_bundle_takes_the_sensors_units(motion):
    run, bundle = motion
    factors = np.array([9.80665] * 3 + [np.pi / 180] * 3, np.float32)
    si = np.random.default_rng(3).normal(size=(5, 24, 6)).astype(np.float32)
    with torch.no_grad():
        expected = run.model(torch.from_numpy(si)).numpy()
    runner = BundleRunner(bundle, threads=1)
    np.testing.assert_allclose(runner.logits(si / factors), expected, rtol=0, atol=TOLERANCE)
    assert runner.manifest.preprocessing["units"] == ["g"] * 3 + ["deg/s"] * 3


@pytest.mark.parametrize(("acc", "gyro"), [("m/s^2", "rad/s"), ("g", "deg/s")])
def test_stream_of_any_units_answers_as_the_run_does(motion, acc, gyro):
    run, bundle = motion
    generator = np.random.default_rng(4)
    si = np.concatenate([generator.normal([0, 0, 9.8], 1.0, (97, 3)), generator.normal(0, 0.5, (97, 3))], axis=1)
    source = {"g": 9.80665, "m/s^2": 1.0}[acc], {"deg/s": np.pi / 180, "rad/s": 1.0}[gyro]
    options = StreamOptions(source=SourceOptions(source_hz=20.0, acc_unit=acc, gyro_unit=gyro))
    stream = BundleRunner(bundle, threads=1).stream(options)
    answers = [*stream.push(None, si / np.repeat(source, 3)), *stream.flush()]
    windows = torch.from_numpy(si[:96].reshape(4, 24, 6).astype(np.float32))
    with torch.no_grad():
        expected = run.model(windows).softmax(-1).numpy()
    assert len(answers) == 4
    np.testing.assert_allclose([answer.probabilities for answer in answers], expected, rtol=0, atol=1e-4)


def test_a_page_that_prepares_itself_refuses_a_graph_that_prepares_too(motion, tmp_path):
    with pytest.raises(
        ExportError, match="preprocessing must be outside the graph, where the page does it, got inside"
    ):
        build_site(motion[1], tmp_path / "site")
    assert not (tmp_path / "site").exists()


def test_command_exports_with_preprocessing_inside(tmp_path, monkeypatch, capsys):
    run = _motion_run()
    monkeypatch.setattr("deploy.commands.export.load_trained", lambda path: run)
    RunFolder.create(tmp_path / "run", "imu_saga.finetune", {})
    out = tmp_path / "bundle"
    arguments = ["export", str(tmp_path / "run"), "--out", str(out), "--preprocess", "in-graph", "--no-fixed"]
    assert run_commands("deploy", COMMANDS, [*arguments, "--units", "acc=ft/s^2"]) == 2
    assert "ExportError: --units: must be among acc=m/s^2" in capsys.readouterr().err
    assert not out.exists()
    assert run_commands("deploy", COMMANDS, [*arguments, "--units", "acc=g"]) == 0
    assert verify_bundle(out).preprocessing["units"] == ["g"] * 3 + ["rad/s"] * 3
