"""The weight search: the simplex, its suggestions, label folds, resuming, and executors."""

import dataclasses
import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import imu_saga.search as module
from imu_saga.pretrain import PretrainConfig, pretrain
from imu_saga.search import SearchConfig, label_folds, search
from imu_saga.simplex import believed, suggest, to_cube, to_simplex
from shared_peft.errors import ConfigError, DataError
from shared_peft.training import RunFolder
from tests.imu_saga.planted import people

LEVELS = ("period", "point", "sensor", "sub_period")
PRE = PretrainConfig(steps=20, batch_size=16, options={"width": 16, "depth": 1, "heads": 2})


def folder(path, kind="imu_saga.search") -> RunFolder:
    return RunFolder.create(path, kind, {}, resume=True)


def test_cube_and_simplex_are_inverse_and_uniform():
    rng = np.random.default_rng(0)
    points = rng.uniform(size=(4000, 3))
    weights = np.array([to_simplex(point) for point in points])
    assert weights.min() >= 0
    assert weights.sum(1) == pytest.approx(np.ones(4000))
    assert np.array([to_cube(row) for row in weights]) == pytest.approx(points, abs=1e-6)
    exact = rng.dirichlet(np.ones(4), 4000)
    for column in range(4):  # every weight has the flat simplex's mean 1/4 and variance 3/80
        assert weights[:, column].mean() == pytest.approx(0.25, abs=0.015)
        assert weights[:, column].var() == pytest.approx(exact[:, column].var(), abs=0.004)
    for corner in np.eye(4):
        assert to_simplex(to_cube(corner)) == pytest.approx(corner)


def test_suggestions_start_at_the_corners_and_centre_and_then_beat_random_draws():
    target = np.array([0.1, 0.2, 0.6, 0.1])

    def score(weights):
        return -float(((np.asarray(weights) - target) ** 2).sum())

    tried, scores = [], []
    for number in range(14):
        weights = suggest(tried, scores, number, 4, seed=0)
        assert sum(weights) == pytest.approx(1)
        tried.append(weights)
        scores.append(score(weights))
    assert tried[:5] == [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1], [0.25] * 4]
    random = np.random.default_rng(0).dirichlet(np.ones(4), (500, 9))
    best_random = np.median([max(score(weights) for weights in draw) for draw in random])
    assert max(scores[5:]) > best_random
    assert suggest(tried, scores, 14, 4, seed=0) == suggest(tried, scores, 14, 4, seed=0)


def test_belief_smooths_noise_away():
    rng = np.random.default_rng(0)
    tried = rng.dirichlet(np.ones(4), 30)
    truth = 0.7 + 0.2 * tried[:, 2]
    noisy = truth + rng.normal(0, 0.03, 30)
    assert np.abs(believed(tried, noisy) - truth).mean() < 0.6 * np.abs(noisy - truth).mean()


def test_label_folds_keep_people_apart_and_stay_in_the_budget():
    windows = people(subjects=5)
    for seed in range(4):
        first, second = label_folds(windows, 7, seed)
        assert not set(windows.subjects[first]) & set(windows.subjects[second])
        both = windows.labels[np.concatenate([first, second])]
        assert np.bincount(both).tolist() == [7, 7, 7]
        assert np.bincount(windows.labels[first]).tolist() == [4, 4, 4]
    lonely = windows.subset((windows.labels != 2) | (windows.subjects == "p0"))
    with pytest.raises(DataError, match="class 'fast' must occur in both halves"):
        label_folds(lonely, 4, 0)
    with pytest.raises(DataError, match="2 subjects or more, got 1"):
        label_folds(windows.subset(windows.subjects == "p1"), 4, 0)


@pytest.fixture
def fake_trials(monkeypatch):
    """Replace the trial by a formula; return the list of weights it was called with."""
    calls = []

    def run_trial(task):
        calls.append(task.weights)
        if len(calls) == 8:
            raise KeyboardInterrupt
        return 0.5 + 0.3 * task.weights["sensor"]

    monkeypatch.setattr(module, "run_trial", run_trial)
    return calls


def test_a_killed_search_goes_on_with_the_same_trials_and_repeats_none(fake_trials, tmp_path):
    config = SearchConfig(trials=10, shots=4)
    windows = people(subjects=4, each=4)
    with pytest.raises(KeyboardInterrupt):
        search(windows, tmp_path, PRE, config, folder(tmp_path / "a"))
    assert len(json.loads((tmp_path / "a" / "trials.json").read_text())) == 7
    killed = search(windows, tmp_path, PRE, config, folder(tmp_path / "a"))
    assert len(fake_trials) == 8 + 3
    whole = search(windows, tmp_path, PRE, config, folder(tmp_path / "b"))
    assert killed.trials == whole.trials
    calls = len(fake_trials)
    search(windows, tmp_path, PRE, config, folder(tmp_path / "b"))
    assert len(fake_trials) == calls
    assert whole.weights["sensor"] > 0.5
    assert json.loads((tmp_path / "b" / "best.json").read_text())["weights"] == whole.weights


def test_trials_run_through_any_executor(monkeypatch, tmp_path):
    monkeypatch.setattr(module, "run_trial", lambda task: 0.5 + 0.3 * task.weights["sensor"])
    config, seen = SearchConfig(trials=9, shots=4), []
    with ThreadPoolExecutor(3) as pool:
        result = search(
            people(subjects=4, each=4), tmp_path, PRE, config, folder(tmp_path / "a"), executor=pool, workers=3,
            tell=seen.append,
        )  # fmt: skip
    assert [trial["number"] for trial in result.trials] == list(range(9))
    assert len(seen) == 9
    assert result.weights["sensor"] > 0.5
    assert all(sum(trial["weights"].values()) == pytest.approx(1) for trial in result.trials)


def test_a_real_trial_scores_and_cleans_up_behind_itself(tmp_path):
    windows = people(subjects=4, each=6)
    pretrain(windows, PRE, folder(tmp_path / "pre", "imu_saga.pretrain"), progress=None)
    config = SearchConfig(trials=2, shots=6, finetune_steps=20, fraction=0.5)
    result = search(windows, tmp_path / "pre", PRE, config, folder(tmp_path / "s"))
    assert [set(trial["weights"]) for trial in result.trials] == [set(LEVELS)] * 2
    assert all(1 / 6 < trial["score"] <= 1 for trial in result.trials)
    assert not list((tmp_path / "s").rglob("*.safetensors"))
    again = search(windows, tmp_path / "pre", PRE, config, folder(tmp_path / "t"))
    assert again.trials == result.trials, "a trial is a function of its weights and seed"


def test_impossible_searches_are_refused():
    with pytest.raises(ConfigError, match="search shots: must leave labels to fit and to validate, got 1"):
        SearchConfig(shots=1)
    with pytest.raises(ConfigError, match=r"search fraction: must be in \(0, 1\], got 0"):
        dataclasses.replace(SearchConfig(), fraction=0)
    with pytest.raises(ConfigError, match="search trials: must be at least 1, got 0"):
        SearchConfig(trials=0)
