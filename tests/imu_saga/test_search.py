"""The weight search: label folds, trials, resuming, early stop, continuing, warm start, its picture."""

import dataclasses
import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from imu_saga.commands import COMMANDS
from imu_saga.finetune import FinetuneConfig, finetune, predict_probabilities
from imu_saga.pretrain import PretrainConfig, pretrain
from imu_saga.search import KnownTrial, SearchConfig, TrialTask, engine, label_folds, read_known, run_trial, search
from imu_saga.search.executors import Here
from imu_saga.search.labels import label_halvings
from imu_saga.search.pictures import belief_along, draw_search
from imu_saga.search.suggestion import suggest
from imu_saga.search.surrogate import Surrogate
from imu_saga.search.trial import STAGE_SEEDS, share_windows, shared_windows
from imu_saga.search.verdict import NO_GAIN
from shared_peft.command import run_commands
from shared_peft.errors import ConfigError, DataError, RunError
from shared_peft.training import RunFolder, score_classification
from shared_peft.weights import read_tensors
from tests.imu_saga import searched
from tests.imu_saga.planted import people

LEVELS = ("period", "point", "sensor", "sub_period")
PRE = PretrainConfig(steps=20, batch_size=16, options={"width": 16, "depth": 1, "heads": 2})
EQUAL = dict.fromkeys(LEVELS, 0.25)
FEW = people(subjects=4, each=4)


def folder(path, kind="imu_saga.search") -> RunFolder:
    return RunFolder.create(path, kind, {}, resume=True)


@pytest.fixture
def formula(monkeypatch):
    """Return a function that replaces the trial by a formula."""
    return lambda trial: monkeypatch.setattr(engine, "run_trial", trial)


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


def test_a_killed_search_goes_on_with_the_same_trials_and_repeats_none(formula, tmp_path):
    calls = []

    def run(task):
        calls.append(task.weights)
        if len(calls) == 8:
            raise KeyboardInterrupt
        return searched.smooth_trial(task)

    formula(run)
    config = SearchConfig(trials=10, shots=4, least_gain=0)
    with pytest.raises(KeyboardInterrupt):
        search(FEW, tmp_path, PRE, config, folder(tmp_path / "a"))
    assert len(json.loads((tmp_path / "a" / "trials.json").read_text())) == 7
    killed = search(FEW, tmp_path, PRE, config, folder(tmp_path / "a"))
    assert len(calls) == 8 + 3
    whole = search(FEW, tmp_path, PRE, config, folder(tmp_path / "b"))
    assert killed.trials == whole.trials
    search(FEW, tmp_path, PRE, config, folder(tmp_path / "b"))
    assert len(calls) == 8 + 3 + 10
    assert whole.weights["sensor"] == pytest.approx(0.6, abs=0.15)
    assert json.loads((tmp_path / "b" / "best.json").read_text())["weights"] == whole.weights


def test_the_same_trials_come_whatever_order_they_end_in(formula, tmp_path):
    config, seen = SearchConfig(trials=11, shots=4, least_gain=0), []
    formula(searched.smooth_trial)
    in_order = search(FEW, tmp_path, PRE, config, folder(tmp_path / "a"), executor=Here(), workers=3)
    formula(searched.dawdling_trial)
    with ThreadPoolExecutor(3) as pool:
        there = {"executor": pool, "workers": 3, "tell": seen.append}
        shuffled = search(FEW, tmp_path, PRE, config, folder(tmp_path / "b"), **there)
    assert [trial["number"] for trial in seen] != list(range(11)), "the test must shuffle"
    assert shuffled.trials == in_order.trials
    assert len({tuple(trial["weights"].values()) for trial in shuffled.trials}) == 9, "only the centre comes thrice"
    assert len({trial["seed"] for trial in shuffled.trials}) == 11


def test_a_search_stops_when_the_rest_is_expected_to_gain_less_than_noise(formula, tmp_path):
    formula(searched.flat_trial)
    config = SearchConfig(trials=40, shots=4, seed=1)
    flat = search(FEW, tmp_path, PRE, config, folder(tmp_path / "flat"))
    assert 7 <= len(flat.trials) < 40
    assert f"{40 - len(flat.trials)} trials left" in flat.stopped
    for number in range(7, len(flat.trials) + 1):
        before = flat.trials[:number]
        belief = Surrogate([list(t["weights"].values()) for t in before], [t["score"] for t in before])
        rest = (40 - number) * suggest(belief, 1 + number)[1]
        assert (rest < belief.noise) == (number == len(flat.trials)), "not a trial too late or too early"
    best = json.loads((tmp_path / "flat" / "best.json").read_text())
    assert best["verdict"].endswith(NO_GAIN)
    assert best["weights"] == flat.weights == EQUAL, "what is no better within noise is not used"
    assert best["believed_best"] == flat.believed_best
    assert best["gain_over_equal"]["low"] <= 0 <= best["gain_over_equal"]["high"]
    again = search(FEW, tmp_path, PRE, config, folder(tmp_path / "flat"))
    assert (again.trials, again.stopped) == (flat.trials, flat.stopped)
    never = search(FEW, tmp_path, PRE, dataclasses.replace(config, trials=12, least_gain=0), folder(tmp_path / "never"))
    assert (len(never.trials), never.stopped) == (12, "")


def test_a_gain_beyond_noise_is_found_and_told(formula, tmp_path):
    formula(searched.noisy_trial)
    result = search(FEW, tmp_path, PRE, SearchConfig(shots=4), folder(tmp_path / "a"))
    true_gain = searched.planted(result.weights) - searched.planted(EQUAL)
    assert true_gain > 0.9 * (searched.planted(searched.PEAK) - searched.planted(EQUAL))
    assert result.gain.certain
    assert result.gain.low <= true_gain <= result.gain.high
    assert NO_GAIN not in json.loads((tmp_path / "a" / "best.json").read_text())["verdict"]


def test_the_promising_third_and_equal_weights_go_on_and_are_compared_there(formula, tmp_path):
    formula(searched.noisy_trial)  # scores 0.05 less at the first fraction
    config = SearchConfig(trials=12, shots=4, fraction=0.1, continued=0.3, least_gain=0)
    result = search(FEW, tmp_path, PRE, config, folder(tmp_path / "a"))
    short, longer = result.trials[:12], result.trials[12:]
    assert {(trial["fraction"], trial["continues"]) for trial in short} == {(0.1, None)}
    assert [trial["fraction"] for trial in longer] == [0.3] * 5
    assert all(trial["weights"] == short[trial["continues"]]["weights"] for trial in longer)
    assert [trial["weights"] for trial in longer].count(EQUAL) == 1
    ranked = sorted(short, key=lambda t: -searched.planted(t["weights"]))
    assert {t["continues"] for t in longer} & {t["number"] for t in ranked[:3]}
    found = searched.planted(result.weights)
    assert max(trial["belief"] for trial in result.trials) == pytest.approx(found, abs=0.012), "not 0.05 less"
    assert json.loads((tmp_path / "a" / "best.json").read_text())["compared_at_fraction"] == 0.3


def test_a_warm_start_tries_no_corners_and_finds_sooner(formula, tmp_path):
    formula(searched.noisy_trial)
    long = search(FEW, tmp_path, PRE, SearchConfig(trials=14, shots=4, least_gain=0), folder(tmp_path / "first"))
    known = read_known(tmp_path / "first", LEVELS)
    assert [trial.score for trial in known] == [trial["score"] for trial in long.trials]
    moved = [dataclasses.replace(trial, score=trial.score - 0.2) for trial in known]
    config = SearchConfig(trials=5, shots=4, seed=7, least_gain=0)
    warm = search(FEW, tmp_path, PRE, config, folder(tmp_path / "warm"), known=moved)
    cold = search(FEW, tmp_path, PRE, config, folder(tmp_path / "cold"))
    assert [trial["weights"] for trial in warm.trials[:3]] == [EQUAL] * 3
    assert searched.planted(warm.weights) > 0.79 > searched.planted(cold.weights)
    assert warm.gain.mean == pytest.approx(searched.planted(warm.weights) - searched.planted(EQUAL), abs=0.02)


def test_a_warm_start_is_refused_from_what_is_no_search_of_these_levels(formula, tmp_path):
    formula(searched.smooth_trial)
    search(FEW, tmp_path, PRE, SearchConfig(trials=2, shots=4), folder(tmp_path / "a"))
    with pytest.raises(RunError, match="must be a search of the levels sensor, got period, point"):
        read_known(tmp_path / "a", ("sensor",))
    folder(tmp_path / "pre", "imu_saga.pretrain")
    with pytest.raises(RunError, match=r"must be a run of kind imu_saga\.search"):
        read_known(tmp_path / "pre", LEVELS)
    assert KnownTrial((1.0, 0, 0, 0), 0.8 - 0.3 * (0.81 + 0.04 + 0.36 + 0.01), "a at 0.1") in read_known(
        tmp_path / "a", LEVELS
    )


def test_trials_share_the_folds_and_the_subset_and_nothing_else(tmp_path):
    windows = people(subjects=4, each=6)
    folds = label_folds(windows, 4, 0)
    share_windows(windows, folds, SearchConfig(subset=0.25), tmp_path / "w.npz")
    found = shared_windows(tmp_path / "w.npz")
    unlabelled, halves = found.unlabelled, (found.first, ~found.first)
    for shared, rows in zip(map(found.labelled.subset, halves), folds, strict=True):
        for field in dataclasses.fields(windows):
            assert np.array_equal(getattr(shared, field.name), getattr(windows.subset(rows), field.name)), field.name
    assert len(unlabelled) == len(windows) // 4
    assert len({row.tobytes() for row in unlabelled.x} & {row.tobytes() for row in windows.x}) == len(unlabelled)
    (tmp_path / "w.npz").unlink()
    with pytest.raises(RunError, match="must be readable where the trial runs, got FileNotFoundError"):
        shared_windows(tmp_path / "w.npz")


def test_halvings_keep_people_apart_show_every_class_and_are_all_different():
    windows = people(subjects=6)
    first, second = label_folds(windows, 9, 0)
    labelled = windows.subset(np.concatenate([first, second]))
    half = np.arange(len(labelled)) < len(first)
    halvings = label_halvings(labelled, half, 5, 0)
    assert len(halvings) == 5
    assert np.array_equal(halvings[0], half)
    for side in (*halvings, *(~half for half in halvings)):
        assert not set(labelled.subjects[side]) & set(labelled.subjects[~side])
        assert set(labelled.labels[side]) == {0, 1, 2}
    split = {frozenset(map(frozenset, (labelled.subjects[half], labelled.subjects[~half]))) for half in halvings}
    assert len(split) == 5
    two = labelled.subset(np.isin(labelled.subjects, [labelled.subjects[0], labelled.subjects[-1]]))
    only = two.subjects == two.subjects[0]
    assert len(label_halvings(two, only, 5, 0)) == 1, "two people can be halved in one way"


@pytest.mark.parametrize("from_checkpoint", [False, True])
@pytest.mark.parametrize("method", ["discriminant", "full"])
def test_a_real_trial_is_the_stages_and_halvings_it_says(tmp_path, method, from_checkpoint):
    windows = people(subjects=4, each=6)
    windows = dataclasses.replace(
        windows, x=windows.x + np.random.default_rng(0).normal(0, 1.5, windows.x.shape).astype("f4")
    )
    pretrain(windows, PRE, folder(tmp_path / "pre", "imu_saga.pretrain"), progress=None)
    config = SearchConfig(
        shots=6, method=method, finetune_steps=12, subset=1.0, halvings=2, from_checkpoint=from_checkpoint
    )
    folds = label_folds(windows, 6, 0)
    share_windows(windows, folds, config, tmp_path / "w.npz")
    weights = {"period": 0.1, "point": 0.2, "sensor": 0.7, "sub_period": 0.0}
    task = TrialTask(tmp_path / "w.npz", weights, 3, (0.25, 0.5), tmp_path / "pre", PRE, config, tmp_path / "t")
    outcome = run_trial(task)
    assert run_trial(task).score == outcome.score, "stages found are used"
    for stage, start in enumerate(("pre" if from_checkpoint else None, "stage_0")):
        rate = PRE.learning_rate if start is None else config.learning_rate
        own = dataclasses.replace(PRE, seed=3 + STAGE_SEEDS * stage, weights=weights, steps=5, learning_rate=rate)
        run = folder(tmp_path / f"stage_{stage}", "imu_saga.pretrain")
        pretrain(windows, own, run, start=None if start is None else tmp_path / start, progress=None)
        made, ours = (
            read_tensors(path / f"stage_{stage}" / "model.safetensors") for path in (tmp_path, tmp_path / "t")
        )
        assert made.keys() == ours.keys()
        assert all(torch.equal(made[name], ours[name]) for name in made)
    labelled = windows.subset(np.concatenate(folds))
    scores = []
    for half in label_halvings(labelled, np.arange(len(labelled)) < len(folds[0]), 2, config.seed):
        answers = torch.zeros(len(labelled), dtype=torch.long)
        for fit in (half, ~half):
            tuning = FinetuneConfig(method=method, steps=12, seed=3, statistics=False)
            _, model = finetune(labelled.subset(fit), tuning, checkpoint=tmp_path / "stage_1")
            answers[torch.from_numpy(~fit)] = predict_probabilities(model, labelled.x[~fit]).argmax(1)
        scores.append(score_classification(answers, torch.from_numpy(labelled.labels), 3).macro_f1)
    assert len(scores) == 2
    assert outcome.score == pytest.approx(np.mean(scores))


def test_a_real_search_scores_and_cleans_up_behind_itself(tmp_path):
    windows = people(subjects=4, each=6)
    pretrain(windows, PRE, folder(tmp_path / "pre", "imu_saga.pretrain"), progress=None)
    config = SearchConfig(trials=2, shots=6, finetune_steps=20, fraction=0.5, continued=1.0)
    result = search(windows, tmp_path / "pre", PRE, config, folder(tmp_path / "s"))
    assert [set(trial["weights"]) for trial in result.trials] == [set(LEVELS)] * 3
    assert all(1 / 6 < trial["score"] <= 1 for trial in result.trials)
    assert sorted(path.name for path in (tmp_path / "s").iterdir()) == [
        ".lock",
        "best.json",
        "config.json",
        "trials.json",
    ]
    again = search(windows, tmp_path / "pre", PRE, config, folder(tmp_path / "t"))
    assert [trial["score"] for trial in again.trials] == [trial["score"] for trial in result.trials]


def test_the_picture_shows_the_trials_and_the_belief(formula, tmp_path):
    rng = np.random.default_rng(0)
    tried = rng.dirichlet(np.ones(4), 9)
    belief = Surrogate(tried, rng.uniform(0.6, 0.8, 9))
    for column, level in enumerate(LEVELS):
        share, mean, deviation = belief_along(belief, LEVELS, level)
        without = np.where(np.arange(4) == column, 0, 1 / 3)
        expected = belief.predict([without, [0.25] * 4, np.eye(4)[column]])
        at = [0, int(np.abs(share - 0.25).argmin()), -1]
        assert share[at] == pytest.approx([0, 0.25, 1])
        assert mean[at] == pytest.approx(expected[0])
        assert deviation[at] == pytest.approx(expected[1])
    formula(searched.noisy_trial)
    result = search(FEW, tmp_path, PRE, SearchConfig(trials=9, shots=4, continued=0.2), folder(tmp_path / "a"))
    path = draw_search(result, tmp_path)
    assert path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_impossible_searches_are_refused(tmp_path, capsys):
    with pytest.raises(ConfigError, match="search shots: must leave labels to fit and to validate, got 1"):
        SearchConfig(shots=1)
    with pytest.raises(ConfigError, match=r"search fraction: must be in \(0, 1\], got 0"):
        dataclasses.replace(SearchConfig(), fraction=0)
    with pytest.raises(ConfigError, match="search trials: must be at least 1, got 0"):
        SearchConfig(trials=0)
    with pytest.raises(ConfigError, match=r"search continued: must be above the first fraction, 0\.1, and at most 1"):
        SearchConfig(continued=0.1)
    with pytest.raises(ConfigError, match="search least gain: must be 0 or more, got nan"):
        SearchConfig(least_gain=float("nan"))
    assert run_commands("imu_saga", COMMANDS, ["search", "--checkpoint", str(tmp_path)]) == 2
    assert "must be a run folder" in capsys.readouterr().err
