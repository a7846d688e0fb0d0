"""The classifier's head: what it sees, and its closed-form start."""

import dataclasses

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal
from sklearn.covariance import ledoit_wolf

from imu_saga.encoder import build_encoder
from imu_saga.finetune import FinetuneConfig, finetune, settled
from imu_saga.heads import START_SPREAD, Classifier, discriminant
from imu_saga.input_spec import InputSpec
from imu_saga.recording import ACC_CHANNELS, IMU_CHANNELS
from imu_saga.signal.features import WindowFeatures, feature_names, window_features
from shared_peft.errors import ConfigError
from tests.imu_saga.planted import people

SPEC = InputSpec(IMU_CHANNELS, 20.0, 60)
SMALL = {"width": 16, "depth": 1, "heads": 2}
CLOSE = {"rtol": 1e-4, "atol": 1e-4}


def signals(windows=12, samples=60, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(windows, samples, 6, generator=generator).cumsum(1) * 0.3 + torch.tensor([9.8, 0, 0, 0, 0, 0])


def test_the_network_s_statistics_are_the_smooth_hand_features():
    x = signals()
    smooth = feature_names(IMU_CHANNELS, smooth=True)
    every = feature_names(IMU_CHANNELS)
    assert set(every) - set(smooth) == {n for n in every if n.endswith(("crossings", "peak_hz", "autocorrelation"))}
    expected = window_features(x.numpy(), 20.0, IMU_CHANNELS)[:, [every.index(name) for name in smooth]]
    found = WindowFeatures(IMU_CHANNELS, 20.0, 60, smooth=True)(x).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)


def test_smooth_features_hardly_move_when_the_signal_hardly_moves():
    features = WindowFeatures(IMU_CHANNELS, 20.0, 60, smooth=True)
    still = torch.full((1, 60, 6), 3.0)
    moved = still + 1e-5 * torch.randn(still.shape, generator=torch.Generator().manual_seed(0))
    for x in (signals(), still):
        other = moved if x is still else x + 1e-5 * torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
        scale = features(signals(200)).std(0) + 1e-3
        assert (
            (features(x) - features(other)).abs() / scale
        ).max() < 0.2  # a square root of next to nothing moves most


def test_statistics_of_absent_channels_say_nothing():
    whole = Classifier(build_encoder("saga", SPEC, SMALL), 3, statistics=True).eval()
    x = signals()
    whole.calibrate(x)
    spec = dataclasses.replace(SPEC, channels=ACC_CHANNELS)
    half = Classifier(build_encoder("saga", spec, {**SMALL, "slots": IMU_CHANNELS}), 3, statistics=True).eval()
    half.load_state_dict(whole.state_dict())
    found = half.head_input(x[:, :, :3])
    there = [i for i, name in enumerate(feature_names(IMU_CHANNELS, smooth=True)) if name.startswith("acc")]
    statistics = slice(2 * 16, None)
    torch.testing.assert_close(found[:, statistics][:, there], whole.head_input(x)[:, statistics][:, there], **CLOSE)
    gone = [i for i in range(found.shape[1] - 32) if i not in there]
    assert (found[:, statistics][:, gone] == 0).all()


def test_the_discriminant_is_bayes_rule_of_normal_classes_with_one_shrunk_covariance():
    generator = np.random.default_rng(0)
    labels = np.repeat([0, 1, 3], [9, 14, 7])
    common = generator.normal(size=(30, 1)) * np.linspace(1, 3, 12)  # so that the features belong together
    features = common + generator.normal(size=(30, 12)) + generator.normal(size=(4, 12))[labels]
    weight, bias = discriminant(features, labels, 4)
    rest = np.concatenate([features[labels == c] - features[labels == c].mean(0) for c in (0, 1, 3)])
    pooled = sum(np.outer(row, row) for row in rest) / 27
    scaled = rest / np.sqrt(np.diag(pooled))
    share = 2 * ledoit_wolf(scaled, assume_centered=True)[1]
    assert 0 < share < 1
    covariance = pooled * np.where(np.eye(12), 1, 1 - share)
    fresh = generator.normal(size=(200, 12))
    ours = (fresh @ weight.T + bias)[:, [0, 1, 3]]
    theirs = np.stack(
        [multivariate_normal(features[labels == c].mean(0), covariance).logpdf(fresh) for c in (0, 1, 3)], axis=1
    )
    np.testing.assert_allclose(ours - ours.mean(1, keepdims=True), theirs - theirs.mean(1, keepdims=True), rtol=1e-6)
    assert (fresh @ weight.T + bias).argmax(1).max() == 3
    assert 2 not in (fresh @ weight.T + bias).argmax(1)


@pytest.mark.parametrize("per_class", [1, 2, 3, 10])
def test_the_discriminant_knows_well_parted_classes_from_any_number_of_windows(per_class):
    generator = np.random.default_rng(per_class)
    centres = 4 * generator.normal(size=(5, 60))
    labels, truth = np.repeat(np.arange(5), per_class), np.repeat(np.arange(5), 40)
    features = centres[labels] + generator.normal(size=(len(labels), 60))
    features[:, 7] = 0.0  # a feature that says nothing
    weight, bias = discriminant(features, labels, 5)
    fresh = centres[truth] + generator.normal(size=(200, 60))
    fresh[:, 7] = 0.0
    assert ((fresh @ weight.T + bias).argmax(1) == truth).mean() > 0.95


def test_one_window_a_class_is_answered_by_the_nearest_mean():
    generator = np.random.default_rng(1)
    features, fresh = generator.normal(size=(3, 5)), generator.normal(size=(50, 5))
    weight, bias = discriminant(features, np.arange(3), 3)
    nearest = ((fresh[:, None] - features) ** 2).sum(2).argmin(1)
    np.testing.assert_array_equal((fresh @ weight.T + bias).argmax(1), nearest)


def test_a_closed_form_head_starts_with_logits_of_the_wanted_spread():
    x = signals(30)
    classifier = Classifier(build_encoder("saga", SPEC, SMALL), 3).eval()
    classifier.calibrate(x)
    classifier.start_head(x, torch.arange(30) % 3)
    logits = classifier(x).detach()
    assert float((logits - logits.mean(1, keepdim=True)).std(correction=0)) == pytest.approx(START_SPREAD, rel=1e-3)


def test_the_discriminant_method_trains_nothing_and_knows_the_planted_activities(tmp_path):
    from imu_saga.pretrain import PretrainConfig, pretrain
    from shared_peft.training import RunFolder

    windows = people(subjects=3)
    start = RunFolder.create(tmp_path / "a", "imu_saga.pretrain", {})
    made, _ = pretrain(windows, PretrainConfig(steps=4, batch_size=16, options=SMALL), start, progress=None)
    few = windows.subset(np.arange(len(windows)) % 2 == 0)
    _, model = finetune(few, FinetuneConfig(method="discriminant"), checkpoint=start.path)
    for key, tensor in made.encoder.state_dict().items():
        assert torch.equal(tensor, model.encoder.state_dict()[key])
    assert (model(torch.from_numpy(windows.x)).argmax(1).numpy() == windows.labels).mean() > 0.9
    with pytest.raises(ConfigError, match="must be on with method discriminant, got off"):
        FinetuneConfig(method="discriminant", closed_form=False)


def test_auto_is_the_closed_form_for_few_labels_and_full_fine_tuning_for_many():
    def sets(per_class):
        return np.eye(3, dtype=bool)[np.repeat(np.arange(3), per_class)]

    auto = FinetuneConfig(method="auto", steps=10, batch_size=16)
    assert settled(auto, sets(50)).method == "discriminant"
    many = settled(auto, sets(51))
    assert (many.method, many.steps, many.peak_rate) == ("full", 77, 5e-4)  # eight passes over 153 windows
    doubtful = sets(5) | np.eye(3, dtype=bool)[[0]]
    assert settled(auto, doubtful).method == "full"
    named = FinetuneConfig(method="lora")
    assert settled(named, sets(5)) is named
