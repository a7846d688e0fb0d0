"""Baselines: one battery over all of them, and each against its definition or an independent implementation."""

import dataclasses
import json
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression, RidgeClassifierCV
from sklearn.metrics import log_loss
from sklearn.model_selection import StratifiedKFold
from sklearn.preprocessing import StandardScaler

from imu_saga.baselines import BASELINES, cnn, random_forest
from imu_saga.baselines._ridge import PENALTIES, fit_ridge
from imu_saga.baselines._rocket import KERNELS, Rocket, draw_channels, fit_rocket, spread_dilations
from imu_saga.baselines.cnn import SmallNetwork
from imu_saga.baselines.logistic_regression import FOLDS, STRENGTHS
from imu_saga.evaluation.scores import score_labels
from imu_saga.signal.features import window_features
from shared_peft.errors import DataError
from tests.imu_saga.planted import people

REFERENCE = Path(__file__).resolve().parents[1] / "reference" / "minirocket.json"


@pytest.fixture(scope="module")
def sides():
    windows = people(subjects=6, each=10)
    held_out = np.isin(windows.subjects, ["p0", "p1"])
    return windows.subset(~held_out), windows.subset(held_out)


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(cnn, "STEPS", 40)
    monkeypatch.setattr(random_forest, "TREES", 40)


def of_classes(windows, counts):
    rows = [np.flatnonzero(windows.labels == label)[:count] for label, count in counts.items()]
    return windows.subset(np.concatenate(rows))


@pytest.mark.parametrize("name", BASELINES.names())
@pytest.mark.parametrize("counts", [{0: 1, 1: 1, 2: 1}, {0: 6, 2: 3}, {1: 4}], ids=["k=1", "a class missing", "one"])
def test_any_labels_give_probabilities_and_unseen_classes_get_none(sides, name, counts, quick):
    train, test = sides
    fitted = BASELINES.get(name)(0).fit(of_classes(train, counts))
    found = fitted.probabilities(test)
    assert found.shape == (len(test), 3)
    assert np.isfinite(found).all()
    assert (found >= 0).all()
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-6)
    assert (found[:, [label for label in range(3) if label not in counts]] == 0).all()
    assert np.array_equal(fitted.predict(test), found.argmax(axis=1))
    assert fitted.predict(test.subset(np.arange(0))).shape == (0,)


@pytest.mark.parametrize("name", BASELINES.names())
def test_one_window_of_each_of_many_classes_is_enough(sides, name, quick):
    train = sides[0].subset(np.arange(24))
    many = dataclasses.replace(train, labels=np.arange(24), classes=tuple(f"c{n}" for n in range(24)))
    np.testing.assert_allclose(BASELINES.get(name)(0).fit(many).probabilities(many).sum(axis=1), 1, atol=1e-6)


@pytest.mark.parametrize("name", [name for name in BASELINES.names() if name != "majority"])
def test_every_baseline_tells_planted_activities_of_new_people_and_repeats_itself(sides, name, quick):
    train, test = sides
    kind = BASELINES.get(name)
    state = torch.random.get_rng_state()
    answers = kind(3).fit(train).probabilities(test)
    assert score_labels(answers.argmax(axis=1), test).macro_f1 > 0.9
    assert np.array_equal(kind(3).fit(train).probabilities(test), answers)
    assert torch.equal(torch.random.get_rng_state(), state), "the global generator is nobody's"


@pytest.mark.parametrize("name", BASELINES.names())
def test_unlabelled_windows_are_left_out_and_nothing_but_them_refused(sides, name, quick):
    train, test = sides
    few = of_classes(train, {0: 3, 1: 3, 2: 3})
    mixed = train.subset(np.concatenate([np.arange(5), np.arange(len(train))[-5:]]))
    hidden = dataclasses.replace(mixed, labels=np.full(len(mixed), -1))
    both = dataclasses.replace(
        few,
        **{
            field: np.concatenate([getattr(few, field), getattr(hidden, field)])
            for field in ("x", "labels", "subjects", "sessions", "placements", "start_s", "valid")
        },
    )
    expected = BASELINES.get(name)(0).fit(few).probabilities(test)
    assert np.array_equal(BASELINES.get(name)(0).fit(both).probabilities(test), expected)
    with pytest.raises(DataError, match="must be labelled windows"):
        BASELINES.get(name)(0).fit(hidden)
    with pytest.raises(DataError, match="Cut them alike"):
        BASELINES.get(name)(0).fit(few).probabilities(dataclasses.replace(test, rate_hz=50.0))


def test_majority_answers_with_the_class_frequencies(sides):
    train, test = sides
    found = BASELINES.get("majority")().fit(of_classes(train, {0: 1, 1: 5, 2: 2})).probabilities(test)
    assert (found == np.array([1, 5, 2]) / 8).all()


def test_the_forest_is_scikit_learns_on_the_hand_features(sides):
    train, test = sides
    features = [window_features(side.x, side.rate_hz, side.channels) for side in sides]
    forest = RandomForestClassifier(300, random_state=4).fit(features[0], train.labels)
    answers = BASELINES.get("random_forest")(4).fit(train).probabilities(test)
    np.testing.assert_array_equal(answers, forest.predict_proba(features[1]))


def test_logistic_regression_takes_the_strength_with_the_best_held_out_likelihood():
    windows = people(subjects=4, each=4, seed=3)
    noisy = dataclasses.replace(
        windows, x=windows.x + np.random.default_rng(0).normal(0, 3, windows.x.shape).astype(np.float32)
    )
    features = window_features(noisy.x, noisy.rate_hz, noisy.channels)
    losses = {}
    for strength in STRENGTHS:
        found = []
        for fit, judge in StratifiedKFold(FOLDS, shuffle=True, random_state=2).split(features, noisy.labels):
            scaler = StandardScaler().fit(features[fit])
            model = LogisticRegression(C=strength, max_iter=5000, tol=1e-8)
            model.fit(scaler.transform(features[fit]), noisy.labels[fit])
            found.append(log_loss(noisy.labels[judge], model.predict_proba(scaler.transform(features[judge]))))
        losses[strength] = np.mean(found)
    best = min(losses, key=lambda strength: losses[strength])
    fitted = BASELINES.get("logistic_regression")(2).fit(noisy)
    assert fitted.model.best_params_ == {"logisticregression__C": best}
    assert losses[best] < 0.95 * max(losses.values())
    assert -fitted.model.best_score_ == pytest.approx(losses[best], rel=0.01)
    scaler = StandardScaler().fit(features)
    model = LogisticRegression(C=best, max_iter=5000, tol=1e-8).fit(scaler.transform(features), noisy.labels)
    expected = model.predict_proba(scaler.transform(features))
    np.testing.assert_allclose(fitted.probabilities(noisy), expected, atol=0.01)


@pytest.mark.parametrize("samples", [5, 9, 40])
def test_rocket_features_equal_their_definition(samples):
    rng = np.random.default_rng(samples)
    x = torch.from_numpy(rng.integers(-9, 10, size=(3, samples, 4)).astype(np.float32))  # whole: sums are exact
    rocket = fit_rocket(x, rng, features=84 * 5)
    found = rocket.features(x).numpy().reshape(3, -1)
    column = 0
    for place, dilation in enumerate(rocket.dilations):
        for kernel, heavy in enumerate(combinations(range(9), 3)):
            weights = np.array([2.0 if tap in heavy else -1.0 for tap in range(9)])
            series = (x.numpy() @ rocket.mixing[place, kernel].numpy()).astype(float)
            response = np.zeros((3, samples))
            for i in range(samples):
                for tap in range(9):
                    j = i + (tap - 4) * dilation
                    if 0 <= j < samples:
                        response[:, i] += weights[tap] * series[:, j]
            whole = [i for i in range(samples) if i >= 4 * dilation and i + 4 * dilation < samples]
            middle = range((samples - 1) // 2, samples - (samples - 1) // 2)  # where no whole kernel fits
            inside = range(samples) if (place + kernel) % 2 == 0 else whole or middle
            for bias in rocket.biases[place][kernel].tolist():
                expected = (response[:, list(inside)] > bias).mean(axis=1)
                np.testing.assert_allclose(found[:, column], expected, atol=1e-6)
                column += 1
    assert column == found.shape[1] == 84 * 5


def test_rocket_features_equal_those_of_aeon():
    """Parameters drawn by aeon's MiniRocket, and its features (tests/reference/minirocket.py)."""
    stored = json.loads(REFERENCE.read_text())
    x = torch.tensor(stored["x"]).mT.contiguous()
    dilations, counts = spread_dilations(x.shape[1], 252)
    assert list(dilations) == stored["dilations"]
    assert list(counts) == stored["biases_per_dilation"]
    sizes = stored["channels_per_combination"]
    mixing, chosen = torch.zeros(len(sizes), x.shape[2]), iter(stored["channels"])
    for combination, size in enumerate(sizes):
        for _ in range(size):
            mixing[combination, next(chosen)] = 1
    biases = torch.tensor(stored["biases"]).split([84 * count for count in counts])
    shaped = tuple(part.view(84, -1) for part in biases)
    rocket = Rocket(dilations, mixing.view(len(dilations), 84, -1), shaped)
    np.testing.assert_allclose(rocket.features(x), stored["features"], atol=1e-5)


def test_biases_are_the_golden_ratio_quantiles_of_a_training_windows_response():
    x = torch.randn(1, 60, 1, generator=torch.Generator().manual_seed(0))
    rocket = fit_rocket(x, np.random.default_rng(0), features=84 * 3)
    levels = (np.arange(1, 84 * 3 + 1) * (5**0.5 + 1) / 2 % 1).reshape(-1)
    first = 0
    for dilation, biases in zip(rocket.dilations, rocket.biases, strict=True):
        for kernel, heavy in enumerate(KERNELS):
            taps = np.full(9, -1.0)
            taps[list(heavy)] = 2
            spread = np.zeros(8 * dilation + 1)
            spread[::dilation] = taps
            response = np.correlate(np.pad(x[0, :, 0].numpy(), 4 * dilation), spread, "valid")
            at = levels[first + kernel * biases.shape[1] :][: biases.shape[1]]
            np.testing.assert_allclose(biases[kernel], np.quantile(response, at), atol=1e-4)
        first += biases.numel()


def test_dilations_stay_inside_the_window_and_use_up_all_features():
    for samples in (2, 9, 20, 100, 600):
        dilations, counts = spread_dilations(samples)
        assert sum(counts) == 119
        assert min(counts) >= 1
        assert dilations[0] == 1
        assert 8 * dilations[-1] < max(samples, 10)


def test_kernels_read_one_to_nine_channels():
    drawn = draw_channels(50, 20, np.random.default_rng(0)).sum(2)
    assert drawn.min() == 1
    assert drawn.max() == 9
    assert draw_channels(3, 1, np.random.default_rng(0)).min() == 1


@pytest.mark.parametrize(("rows", "columns"), [(12, 40), (60, 20)], ids=["wide", "tall"])
def test_ridge_equals_scikit_learns_and_its_penalty_is_the_best_of_brute_force_leave_one_out(rows, columns):
    rng = np.random.default_rng(1)
    codes = np.arange(rows) % 3
    features = rng.normal(size=(rows, columns)) + 0.7 * codes[:, None] * rng.normal(size=columns)
    features[:, 3] = 5.0  # a constant
    made = fit_ridge(features, codes)
    x = (features - made.centre) / made.scale
    other = RidgeClassifierCV(alphas=PENALTIES).fit(x, codes)
    assert made.penalty == pytest.approx(other.alpha_)
    np.testing.assert_allclose(made.scores(features), other.decision_function(x), atol=1e-6)
    target = np.where(codes[:, None] == np.arange(3), 1.0, -1.0)
    errors = []
    for penalty in PENALTIES:
        error = 0.0
        for out in range(rows):
            kept = np.arange(rows) != out
            centre, middle = x[kept].mean(axis=0), target[kept].mean(axis=0)
            inner = (x[kept] - centre).T @ (x[kept] - centre) + penalty * np.eye(columns)
            weights = np.linalg.solve(inner, (x[kept] - centre).T @ (target[kept] - middle))
            error += float((((x[out] - centre) @ weights + middle - target[out]) ** 2).mean())
        errors.append(error)
    assert made.penalty == PENALTIES[int(np.argmin(errors))]


def test_the_small_network_is_small_and_standardises_its_input(sides, quick):
    train, _ = sides
    fitted = BASELINES.get("cnn")(0).fit(of_classes(train, {0: 3, 1: 3, 2: 3}))
    assert sum(parameter.numel() for parameter in SmallNetwork(6, 7).parameters()) < 35_000
    few = of_classes(train, {0: 3, 1: 3, 2: 3}).x.reshape(-1, 6)
    np.testing.assert_allclose(fitted.network.mean, few.mean(axis=0), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(fitted.network.deviation, few.std(axis=0, ddof=1), rtol=1e-4, atol=1e-4)
