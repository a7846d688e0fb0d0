"""Mixup against its definition: one share a batch, from Beta(alpha, alpha), on windows and targets alike."""

import dataclasses

import numpy as np
import pytest
import torch
from scipy import stats
from torch.nn import functional

from imu_saga.finetune import FinetuneConfig, balanced_batches, finetune, predict_probabilities
from imu_saga.mixup import mixed
from shared_peft.errors import ConfigError
from tests.imu_saga.planted import people

CONFIG = FinetuneConfig(method="scratch", batch_size=12, augment={"jitter": {}}, steps=40, learning_rate=1e-3)


def found_share(one: np.ndarray, other: np.ndarray, blend: np.ndarray) -> tuple[float, float]:
    """Return (share of ``one``, what is left over) of a blend of two windows, by least squares."""
    apart = (one - other).ravel()
    share = float(apart @ (blend - other).ravel() / (apart @ apart))
    return share, float(np.abs(share * one + (1 - share) * other - blend).max())


def test_a_batch_is_the_unmixed_batch_blended_by_one_share_with_one_partner_each():
    windows = people(subjects=3, each=6)
    plain, blended = (
        balanced_batches(windows, CONFIG),
        balanced_batches(windows, dataclasses.replace(CONFIG, mixup=1.0)),
    )
    for index in range(4):
        (x, labels), (mixed_x, targets) = plain(index), blended(index)
        shares, partners = [], []
        for row in range(len(x)):
            candidates = [found_share(x[row].numpy(), x[k].numpy(), mixed_x[row].numpy()) for k in others(row, len(x))]
            best = min(range(len(candidates)), key=lambda place: candidates[place][1])
            itself = float((x[row] - mixed_x[row]).abs().max())
            partners.append(row if itself < 1e-6 else others(row, len(x))[best])
            if partners[-1] != row:
                assert candidates[best][1] < 1e-4
                shares.append(candidates[best][0])
        assert sorted(partners) == list(range(len(x)))
        assert np.ptp(shares) < 1e-4
        share = float(np.mean(shares))
        own, theirs = (functional.one_hot(labels[rows], 3).double() for rows in (range(len(x)), partners))
        torch.testing.assert_close(targets.double(), share * own + (1 - share) * theirs, rtol=0, atol=1e-4)


def others(row: int, count: int) -> list[int]:
    return [each for each in range(count) if each != row]


@pytest.mark.parametrize("alpha", [0.2, 1.0, 4.0])
def test_shares_are_beta_distributed(alpha):
    ramp = torch.arange(2.0).view(2, 1, 1)
    shares = []
    for seed in range(1200):
        x, targets = mixed(ramp, torch.eye(2), alpha, torch.Generator().manual_seed(seed))
        assert torch.equal(targets.sum(1), torch.ones(2))
        torch.testing.assert_close(targets[:, 1], x[:, 0, 0])
        if not torch.equal(x, ramp):
            shares.append(float(x[1, 0, 0]))
    assert 480 < len(shares) < 720, "two windows are partners half of the time"
    assert stats.kstest(np.clip(shares, 1e-12, 1 - 1e-12), stats.beta(alpha, alpha).cdf).pvalue > 0.01


def test_mixup_learns_and_is_less_sure_of_itself():
    windows = people(subjects=4, each=8)
    train, test = (windows.subset((windows.subjects == "p0") == side) for side in (False, True))
    confidence = {}
    for alpha in (0.0, 1.0):
        _, model = finetune(train, dataclasses.replace(CONFIG, mixup=alpha))
        probabilities = predict_probabilities(model, test.x)
        assert (probabilities.argmax(1).numpy() == test.labels).mean() > 0.9
        confidence[alpha] = float(probabilities.amax(1).mean())
    assert confidence[1.0] < confidence[0.0] - 0.02


@pytest.mark.parametrize("alpha", [-0.1, float("nan"), float("inf")])
def test_an_alpha_that_is_no_strength_is_refused(alpha):
    with pytest.raises(ConfigError, match="finetune mixup: alpha must be 0 or a positive number, got"):
        FinetuneConfig(mixup=alpha)
