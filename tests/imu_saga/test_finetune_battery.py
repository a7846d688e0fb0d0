"""Every encoder, convolutional, attending or recurrent, with the methods that few labels are trained by."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

import imu_saga.encoders  # noqa: F401  (fills the registry)
from imu_saga.encoder import ENCODERS
from imu_saga.finetune import FinetuneConfig, finetune, predict_probabilities
from imu_saga.pretrain import PretrainConfig, pretrain
from imu_saga.task_adapters import TaskAdapters
from imu_saga.tasks import TASKS
from imu_saga.trained import FINETUNE_KIND, load_run, save_run
from shared_peft import METHODS
from shared_peft.inject import adapter_layers
from shared_peft.training import RunFolder
from tests.imu_saga.planted import people

WINDOWS = people(subjects=2, each=2, samples=120)
WORN = replace(WINDOWS, placements=np.where(np.arange(len(WINDOWS)) % 2, "wrist", "waist"))
METHODS_TRIED = ("full", "head", "lora", "lora_tsd", "flora", "dora", "ssb")
SIZES = {
    "saga": {"width": 16, "depth": 1, "heads": 2},
    "resnet1d": {"widths": [8, 16], "depth": 1},
    "gru": {"width": 16},
}


@pytest.fixture(scope="module", params=ENCODERS.names())
def start(request, tmp_path_factory):
    """A pre-training run of one step of each registered encoder, and a classifier on it."""
    path = tmp_path_factory.mktemp(request.param) / "run"
    folder = RunFolder.create(path, "imu_saga.pretrain", {})
    config = PretrainConfig(steps=1, batch_size=8, encoder=request.param, options=SIZES.get(request.param, {}))
    pretrain(WINDOWS, config, folder, progress=None)
    _, untrained = finetune(WINDOWS, FinetuneConfig(method="head", steps=1, learning_rate=1e-12), checkpoint=path)
    return path, untrained


@pytest.mark.parametrize("method", METHODS_TRIED)
def test_every_encoder_is_tuned_by_every_method_and_comes_back_the_same(method, start, tmp_path):
    checkpoint, untrained = start
    config = FinetuneConfig(method=method, steps=4, batch_size=6, r=2, learning_rate=1e-2)
    folder = RunFolder.create(tmp_path / "run", FINETUNE_KIND, {})
    name, model = finetune(WINDOWS, config, checkpoint=checkpoint, folder=folder)
    expected = predict_probabilities(model, WINDOWS.x)
    assert (expected - predict_probabilities(untrained, WINDOWS.x)).abs().max() > 1e-3
    if method in METHODS:
        kinds = {type(layer.base_layer) for _, layer in adapter_layers(model)}
        held = {type(module) for module in untrained.get_submodule("encoder").modules()}
        assert kinds == held & {nn.Linear, nn.Conv1d, nn.GRU}, "every kind of weight the encoder has is adapted"
    save_run(folder, name, model, WINDOWS, {})
    back = predict_probabilities(load_run(tmp_path / "run").model, WINDOWS.x)
    np.testing.assert_allclose(back, expected, rtol=0, atol=1e-6)
    assert torch.equal(back.argmax(1), expected.argmax(1))


def test_tasks_share_every_encoder_and_answer_as_their_own_runs(start, tmp_path):
    checkpoint, _ = start
    expected = {}
    for task, method in (("activity", "lora"), ("user", "flora"), ("placement", "head")):
        labelled = TASKS.get(task).relabel(WORN)
        config = FinetuneConfig(method=method, steps=4, batch_size=6, r=2, learning_rate=1e-2)
        name, model = finetune(labelled, config, checkpoint=checkpoint)
        expected[task] = predict_probabilities(model, WORN.x)
        save_run(RunFolder.create(tmp_path / task, FINETUNE_KIND, {}), name, model, labelled, {})
    TaskAdapters.load({task: tmp_path / task for task in expected}).save(tmp_path / "pack")
    found = TaskAdapters.read(tmp_path / "pack").predict_all(WORN)
    assert found.keys() == expected.keys()
    for task, probabilities in found.items():
        torch.testing.assert_close(probabilities, expected[task], rtol=0, atol=1e-6)
