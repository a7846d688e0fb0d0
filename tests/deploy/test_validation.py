"""The validation data of a run is its own training side, never its test side, and what it left aside where it can."""

import numpy as np
import pytest
import torch

from deploy import load_trained
from imu_saga.encoder import build_encoder
from imu_saga.heads import Classifier
from imu_saga.input_spec import InputSpec
from imu_saga.source import DataOptions, load_split
from imu_saga.splits import few_shot
from imu_saga.trained import save_run
from shared_peft.config import to_json
from shared_peft.errors import RunError
from shared_peft.training import RunFolder
from vision.adapt import adapt
from vision.backbones.build import build_backbone
from vision.datasets import draw_shots, open_images
from vision.trained import save_examples, save_model
from vision.transforms import load_pixels, normalise


def _vision_run(path, config):
    backbone = build_backbone("small_conv", 3)
    data = backbone.data
    folder = RunFolder.create(path, "vision.finetune", config)
    save_model(folder, backbone, adapt(backbone, "lora", {"r": 2}), ("0", "1", "2"), method="lora", seed=0)
    save_examples(folder, torch.zeros(2, data.channels, data.size, data.size))
    folder.write("results.json", {})
    return data


def _keys(rows):
    return {row.numpy().tobytes() for row in rows}


def test_images_that_were_drawn_or_test_are_not_validation_data(tmp_path):
    classes = ["0", "1", "2"]
    data = _vision_run(tmp_path / "run", {"data": "digits", "classes": classes, "shots": 60, "seed": 4})
    rows = load_trained(tmp_path / "run").validation()
    images = open_images("digits", classes)
    drawn = images.train.take(draw_shots(images.train, 60, 4))
    seen, test, train = (
        _keys(normalise(load_pixels(side, data).values, data)) for side in (drawn, images.test, images.train)
    )
    found = _keys(rows.inputs)
    assert found <= train
    assert found.isdisjoint(seen)
    assert found.isdisjoint(test)
    assert len(rows.inputs) == len(images.train) - 180
    assert torch.bincount(rows.labels).min() > 0.9 * len(rows.labels) / 3


def test_a_run_on_all_images_validates_on_them(tmp_path):
    _vision_run(tmp_path / "run", {"data": "digits", "classes": ["0", "1", "2"], "shots": 0, "seed": 0})
    rows = load_trained(tmp_path / "run").validation()
    assert len(rows.inputs) == len(open_images("digits", ["0", "1", "2"]).train)


def test_a_run_that_does_not_say_its_images_is_refused(tmp_path):
    _vision_run(tmp_path / "run", {"data": "digits"})
    with pytest.raises(RunError, match="must say which images it was trained on, got no classes, shots, seed"):
        load_trained(tmp_path / "run").validation()


def test_windows_that_were_drawn_or_held_out_are_not_validation_data(tmp_path):
    options = DataOptions()
    loaded = load_split(options)
    windows, split = loaded.windows, loaded.split
    drawn = few_shot(windows, split.train, shots=3, seed=2).train
    encoder = build_encoder("limu", InputSpec.of(windows))
    config = {"source": to_json(options), "shots": 3, "seed": 2}
    folder = RunFolder.create(tmp_path / "run", "imu_saga.finetune", config)
    save_run(folder, "limu", Classifier(encoder, len(windows.classes)), windows.subset(split.test), {})
    rows = load_trained(tmp_path / "run").validation()
    found = _keys(rows.inputs)
    keys = {name: _keys(torch.from_numpy(windows.x[side])) for name, side in (("drawn", drawn), ("test", split.test))}
    aside = np.setdiff1d(split.train, drawn)
    assert found == _keys(torch.from_numpy(windows.x[aside]))
    assert found.isdisjoint(keys["drawn"] | keys["test"])
    label_of = {windows.x[row].tobytes(): int(windows.labels[row]) for row in aside}
    assert [label_of[row.numpy().tobytes()] for row in rows.inputs] == rows.labels.tolist()
