"""Runs of vision and imu_saga go to disk, come back, and export through every gate."""

import json

import numpy as np
import pytest
import torch

from deploy import BundleRunner, export_model, load_trained
from deploy.parity import TOLERANCE
from imu_saga.encoder import ENCODERS, build_encoder
from imu_saga.finetune import FinetuneConfig, attach_method
from imu_saga.heads import Classifier
from imu_saga.trained import save_run
from imu_saga.windows import WindowSet
from shared_peft.training import RunFolder
from tests.deploy.architectures import CHANNELS, WINDOWS, fill, image_model, window_model
from vision.adapt import adapt
from vision.backbones.build import build_backbone
from vision.trained import save_examples, save_model

CASES = [
    (image_model, "resnet20", "flora"),
    (image_model, "vit_cifar10_postnorm", "lora"),
    (window_model, "limu", "lora_tsd"),
    (window_model, "saga", "flora"),
    (window_model, "resnet1d", "flora"),
    (window_model, "gru", "lora_tsd"),
]


@pytest.mark.parametrize(("make", "name", "method"), CASES, ids=[f"{name}-{method}" for _, name, method in CASES])
def test_adapted_architecture_exports_with_the_base_models_nodes(tmp_path, make, name, method):
    trained = make(name, method)
    manifest = export_model(trained, tmp_path / "bundle")
    assert manifest.parity["nodes_more_than_base"] == 0
    assert manifest.parity["max_abs_difference_randomised"] <= TOLERANCE
    inputs = torch.randn(5, *trained.input_shape, generator=torch.Generator().manual_seed(9))
    got = BundleRunner(tmp_path / "bundle", threads=1).logits(inputs.numpy())
    np.testing.assert_allclose(got, trained.model(inputs).numpy(), rtol=0, atol=TOLERANCE)


def test_every_encoder_of_motion_is_among_the_cases():
    import imu_saga.encoders  # noqa: F401

    assert {name for make, name, _ in CASES if make is window_model} == set(ENCODERS.names())


def test_imu_run_on_disk_becomes_a_bundle_that_answers_alike(tmp_path):
    spec, count = WINDOWS["limu"], 12
    generator = np.random.default_rng(0)
    windows = WindowSet(
        x=generator.normal(size=(count, spec.samples, 6)).astype(np.float32),
        labels=np.arange(count) % 3,
        subjects=np.array(["a"] * count),
        sessions=np.array(["a/1"] * count),
        placements=np.array(["wrist"] * count),
        start_s=np.arange(count, dtype=float),
        valid=np.ones((count, spec.samples), dtype=bool),
        classes=("lie", "sit", "stand"),
        channels=CHANNELS,
        rate_hz=spec.rate_hz,
        seconds=spec.seconds,
    )
    torch.manual_seed(0)
    classifier = Classifier(build_encoder("limu", spec), 3)
    model = fill(attach_method(classifier, FinetuneConfig(method="lora", encoder="limu", r=2)))
    with torch.no_grad():
        expected = model(torch.from_numpy(windows.x)).numpy()
    folder = RunFolder.create(tmp_path / "run", "imu_saga.finetune", {"data": "/home/me/recordings"})
    save_run(folder, "limu", model, windows, {"scores": {"macro_f1": 0.5}})

    manifest = export_model(load_trained(tmp_path / "run"), tmp_path / "bundle", secrets=(tmp_path,))
    assert manifest.classes == ("lie", "sit", "stand")
    assert manifest.preprocessing["rate_hz"] == 20.0
    assert manifest.preprocessing["channels"] == list(CHANNELS)
    assert manifest.preprocessing["units"] == ["m/s^2"] * 3 + ["rad/s"] * 3
    assert manifest.scores == {"macro_f1": 0.5}
    got = BundleRunner(tmp_path / "bundle", threads=1).logits(windows.x)
    np.testing.assert_allclose(got, expected, rtol=0, atol=TOLERANCE)


def test_vision_run_on_disk_becomes_a_bundle_that_answers_alike(tmp_path):
    backbone = build_backbone("small_conv", 3)
    data = backbone.data
    images = torch.randn(8, data.channels, data.size, data.size, generator=torch.Generator().manual_seed(1))
    trainee = adapt(backbone, "lora_tsd", {"r": 2, "n_directions": 2})
    fill(trainee.model)
    with torch.no_grad():
        expected = trainee.model(images).numpy()
    folder = RunFolder.create(tmp_path / "run", "vision.finetune", {})
    save_model(folder, backbone, trainee, ("one", "two", "three"), method="lora_tsd", seed=0)
    save_examples(folder, images)
    folder.write("results.json", {"accuracy": 0.9, "confusion": [[3, 0, 1], [0, 4, 0], [1, 0, 3]]})

    manifest = export_model(load_trained(tmp_path / "run"), tmp_path / "bundle")
    assert manifest.classes == ("one", "two", "three")
    for key in ("mean", "std", "colour", "height_px", "width_px", "scale", "layout"):
        assert key in manifest.preprocessing
    got = BundleRunner(tmp_path / "bundle", threads=1).logits(images.numpy())
    np.testing.assert_allclose(got, expected, rtol=0, atol=TOLERANCE)
    assert "| one | 3 | 0 | 1 |" in (tmp_path / "bundle" / "README.md").read_text()
    assert json.loads((tmp_path / "bundle" / "manifest.json").read_text())["scores"]["accuracy"] == 0.9
