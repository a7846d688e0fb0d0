"""A graph that prepares its raw input gets the same small files as one that does not."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from deploy import BundleRunner, export_model
from deploy.manifest import verify_bundle
from deploy.preprocess import in_graph
from deploy.variants import VariantOptions
from shared_peft.training import LabelledRows, TrainedModel
from tests.deploy.nets import trained_net
from vision import transforms
from vision.backbones.family import DataConfig

DATA = DataConfig(8, (0.5, 0.4, 0.3), (0.25, 0.25, 0.2), "bicubic", 0.875, "center")
SMALL = VariantOptions(int8="auto", fp16=True, fixed=False, max_drop=5)


def _images() -> TrainedModel:
    net = trained_net("conv")
    generator = torch.Generator().manual_seed(0)
    levels = torch.randint(0, 256, (160, 3, 8, 8), dtype=torch.uint8, generator=generator)
    rows = transforms.normalise(levels, DATA)
    with torch.no_grad():
        net.model.head.bias -= net.model(rows).mean(0)
        labels = net.model(rows).argmax(1)
    steps = transforms.describe_preprocessing(DATA)
    run = replace(net, preprocessing=steps, examples=rows[:8], validation=lambda: LabelledRows(rows, labels))
    return in_graph(run)


def _motion() -> TrainedModel:
    channels = [f"{sensor}_{axis}" for sensor in ("acc", "gyro") for axis in "xyz"]
    units = ["m/s^2"] * 3 + ["rad/s"] * 3
    steps = {"rate_hz": 20.0, "seconds": 1.6, "samples": 32, "channels": channels, "units": units, "gravity": "kept"}
    return in_graph(replace(trained_net("table"), preprocessing=steps), ["acc=g", "gyro=deg/s"])


@pytest.mark.parametrize("make", [_images, _motion])
def test_int8_and_fp16_files_take_raw_input_too(tmp_path, make):
    trained = make()
    manifest = export_model(trained, tmp_path / "bundle", variants=SMALL)
    verify_bundle(tmp_path / "bundle")
    whole = manifest.files["model.onnx"].size_bytes
    for name, most in (("int8", 0.28), ("fp16", 0.52)):
        entry = manifest.variants[name]
        assert manifest.files[entry.file].size_bytes <= most * whole
        assert entry.measured["rows"] == 120
        assert entry.measured["top1_agreement"] >= 0.95
        runner = BundleRunner(tmp_path / "bundle", threads=1, variant=name)
        raw = trained.validation().inputs[1:2]
        with torch.no_grad():
            expected = trained.model(raw).numpy()
        np.testing.assert_allclose(runner.logits(raw.numpy()), expected, rtol=0, atol=0.1 * np.ptp(expected))
