"""Checkpoints that come with the package."""

import dataclasses

import numpy as np
import pytest
import torch

from imu_saga import shipped
from imu_saga.card import WEIGHTS, read_card
from imu_saga.encoders.limu import LimuEncoder
from imu_saga.encoders.saga import SagaEncoder
from imu_saga.evaluation.footprint import read_footprint
from imu_saga.finetune import FinetuneConfig, finetune, predict_probabilities
from shared_peft.errors import CheckpointError, RunError
from tests.imu_saga.planted import people

SMALL = "saga-small"


def test_the_small_checkpoint_comes_with_the_package_and_is_small():
    assert SMALL in shipped.shipped_names()
    folder = shipped.checkpoint_path(SMALL)
    assert sum(path.stat().st_size for path in folder.iterdir()) < 4e6
    assert read_card(folder).input.rate_hz == 20.0
    trained_on = {person.partition("/")[0] for person in read_footprint(folder).sides["pretrain"].people}
    assert trained_on == {"synthetic", "sp_sw_har"}, "nothing that may not be redistributed"


def test_it_is_read_by_name_for_any_window_length():
    encoder = SagaEncoder.from_pretrained(SMALL)
    assert encoder(torch.zeros(2, encoder.spec.samples, 6)).shape[0] == 2
    short = SagaEncoder.from_pretrained(SMALL, dataclasses.replace(encoder.spec, samples=40))
    tokens = short(torch.zeros(2, 40, 6))
    assert tokens.shape[2] == encoder.width
    for key, value in encoder.state_dict().items():
        assert torch.equal(value, short.state_dict()[key])


def test_it_tells_the_planted_activities_apart_from_five_windows_each():
    windows = people(subjects=4)
    first = np.concatenate([np.flatnonzero(windows.labels == index)[:5] for index in range(3)])
    rest = windows.subset(np.setdiff1d(np.arange(len(windows)), first))
    config = FinetuneConfig(method="discriminant", statistics=False)
    _, model = finetune(windows.subset(first), config, checkpoint=shipped.checkpoint_path(SMALL))
    assert (predict_probabilities(model, rest.x).argmax(1).numpy() == rest.labels).mean() > 0.9


def test_a_folder_of_that_name_comes_first_and_others_are_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert shipped.checkpoint_path(SMALL) == shipped.FOLDER / SMALL
    (tmp_path / SMALL).mkdir()
    assert shipped.checkpoint_path(SMALL).resolve() == tmp_path / SMALL
    assert shipped.checkpoint_path("saga-huge").name == "saga-huge"
    with pytest.raises(RunError, match="must hold model.json"):
        SagaEncoder.from_pretrained("saga-huge")
    with pytest.raises(CheckpointError, match="must hold the encoder of LimuEncoder, got saga. Use SagaEncoder.from_"):
        LimuEncoder.from_pretrained(shipped.FOLDER / SMALL)
    assert (shipped.FOLDER / SMALL / WEIGHTS).is_file()
