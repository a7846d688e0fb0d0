"""Networks trained on candidate labels."""

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

import imu_saga.partial_labels.training as training_module
from imu_saga.candidates import label_sets
from imu_saga.evaluation.scores import score_model
from imu_saga.finetune import FinetuneConfig, balanced_batches, finetune, predict_probabilities
from imu_saga.partial_labels import PARTIAL_LABEL_METHODS
from imu_saga.windows import WindowSet
from shared_peft import PeftModel
from shared_peft.errors import ConfigError, DataError, UnknownNameError
from shared_peft.training import RunFolder
from tests.imu_saga.planted import people

EVERY_METHOD = pytest.mark.parametrize("name", PARTIAL_LABEL_METHODS.names())
QUICK = FinetuneConfig(method="scratch", steps=40, batch_size=24, learning_rate=3e-3)


@pytest.fixture(scope="module")
def windows() -> WindowSet:
    return people(subjects=4, each=8)


def planted(windows: WindowSet, seed: int) -> np.ndarray:
    """Return sets of the label and, for one window of two, one of the two others."""
    rng = np.random.default_rng(seed)
    sets, wrong = label_sets(windows), (windows.labels + rng.integers(1, 3, len(windows))) % 3
    sets[np.arange(len(windows)), wrong] |= rng.random(len(windows)) < 1 / 2
    return sets


def test_labels_as_sets_of_one_train_the_network_that_labels_train(windows):
    config = dataclasses.replace(QUICK, steps=5)
    plain, placed = (
        balanced_batches(windows, config),
        balanced_batches(windows, config, torch.from_numpy(label_sets(windows))),
    )
    for index in range(3):
        (x, labels), (same, rows) = plain(index), placed(index)
        assert torch.equal(x, same)
        assert np.array_equal(labels.numpy(), windows.labels[rows.numpy()])
    _, model = finetune(windows, config)
    for name in ("average", "proden"):
        given = dataclasses.replace(config, partial=name)
        _, other = finetune(windows, given, candidates=label_sets(windows))
        torch.testing.assert_close(
            predict_probabilities(model, windows.x), predict_probabilities(other, windows.x), rtol=0, atol=1e-4
        )


@EVERY_METHOD
def test_a_network_learns_from_ambiguous_windows_without_labels_and_drops_the_method(name, windows):
    apart = windows.subjects == "p0"
    train = dataclasses.replace(windows, labels=np.full(len(windows), -1)).subset(~apart)
    sets = planted(windows, 1)[~apart]
    sets[::7] = False
    _, model = finetune(train, dataclasses.replace(QUICK, partial=name, steps=60), candidates=sets)
    assert type(model).__name__ == "Classifier"
    assert not model.training
    assert score_model(model, windows.subset(apart)).macro_f1 > 0.9


def test_a_resumed_run_has_the_beliefs_of_an_uninterrupted_one(windows, tmp_path, monkeypatch):
    config, sets = dataclasses.replace(QUICK, partial="plcp", steps=8), planted(windows, 2)

    def tuned(name: str, *, resume: bool = False) -> torch.Tensor:
        folder = RunFolder.create(tmp_path / name, "imu_saga.finetune", {}, resume=resume)
        _, model = finetune(windows, config, candidates=sets, folder=folder, resume=resume)
        return predict_probabilities(model, windows.x)

    whole, original, calls = tuned("whole"), training_module.PartialTrainee.forward, []

    def interrupted(*given: Any) -> torch.Tensor:
        calls.append(1)
        if len(calls) == 6:
            raise KeyboardInterrupt
        return original(*given)

    monkeypatch.setattr(training_module.PartialTrainee, "forward", interrupted)
    with pytest.raises(KeyboardInterrupt):
        tuned("cut")
    assert torch.equal(whole, tuned("cut", resume=True))
    assert len(calls) == 6 + 8 - 4


def test_an_adapter_learns_from_candidates(windows, tmp_path):
    from imu_saga.pretrain import PretrainConfig, pretrain

    folder = RunFolder.create(tmp_path / "pre", "imu_saga.pretrain", {})
    pretrain(windows, PretrainConfig(steps=2, options={"width": 32, "depth": 1, "heads": 2}), folder, progress=None)
    config = dataclasses.replace(QUICK, method="lora", r=2, learning_rate=1e-2, partial="plcp")
    _, model = finetune(windows, config, candidates=planted(windows, 3), checkpoint=tmp_path / "pre")
    assert isinstance(model, PeftModel)
    assert score_model(model, windows).macro_f1 > 0.9


def test_what_cannot_be_learnt_from_is_refused(windows):
    with pytest.raises(UnknownNameError, match="must be one of average, pl_cl, plcp, proden, got 'prodn'"):
        FinetuneConfig(partial="prodn")
    with pytest.raises(ConfigError, match="mixup: must be 0 beside candidates, got 0.2"):
        finetune(windows, dataclasses.replace(QUICK, mixup=0.2), candidates=label_sets(windows))
    with pytest.raises(DataError, match=r"candidates: must be bool of shape \(96, 3\), got bool \(96, 2\)"):
        finetune(windows, QUICK, candidates=label_sets(windows)[:, :2])
    with pytest.raises(DataError, match="at least 2 classes"):
        finetune(windows, QUICK, candidates=label_sets(windows) & (np.arange(3) == 1))
