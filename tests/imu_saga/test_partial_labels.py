"""Candidate labels: tables of them, every method against its formula, and planted ambiguity resolved."""

import dataclasses
import json
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch import nn
from torch.nn import functional

import imu_saga.partial_labels.training as training_module
from imu_saga.candidates import candidate_sets, label_sets, read_candidates
from imu_saga.commands import COMMANDS
from imu_saga.evaluation.scores import score_model
from imu_saga.finetune import FinetuneConfig, balanced_batches, finetune, predict_probabilities
from imu_saga.partial_labels import PARTIAL_LABEL_METHODS
from imu_saga.partial_labels.belief import mean_by_row, projected, uniform, within
from imu_saga.partial_labels.pl_cl import ALPHA, BETA
from imu_saga.partial_labels.plcp import BLUR, COLLABORATION, MOMENTUM
from imu_saga.partial_labels.training import listed_classes
from imu_saga.source import DataOptions, load_windows
from imu_saga.windows import WindowSet
from shared_peft import PeftModel
from shared_peft.command import run_commands
from shared_peft.errors import ConfigError, DataError, UnknownNameError
from shared_peft.training import RunFolder
from tests.imu_saga.planted import people

CLASSES = 5
EVERY_METHOD = pytest.mark.parametrize("name", PARTIAL_LABEL_METHODS.names())
QUICK = FinetuneConfig(method="scratch", steps=40, batch_size=24, learning_rate=3e-3)


def drawn(seed: int, rows: int = 12, width: int = 4) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return random features, logits and candidate sets of one to all classes."""
    generator = torch.Generator().manual_seed(seed)
    candidates = torch.rand(rows, CLASSES, generator=generator) < 0.4
    candidates[torch.arange(rows), torch.randint(CLASSES, (rows,), generator=generator)] = True
    features, logits = (torch.randn(rows, size, generator=generator) for size in (width, CLASSES))
    return features, logits, candidates


def gradient_of(method: Any, features: torch.Tensor, logits: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    features, logits = features.clone().requires_grad_(), logits.clone().requires_grad_()
    method(features, logits, rows).backward()
    assert features.grad is None, "the second classifier must not bend the features"
    assert logits.grad is not None
    return logits.grad


def stepped(method: Any, features: torch.Tensor, logits: torch.Tensor, visits: int) -> None:
    """Let a method see all windows several times, its second classifier learning."""
    given = logits.clone().requires_grad_()
    optimizer = torch.optim.SGD([given, *method.parameters()], lr=0.5)
    for _ in range(visits):
        given.data.copy_(logits)
        optimizer.zero_grad()
        method(features, given, torch.arange(len(logits))).backward()
        optimizer.step()


def test_the_nearest_distribution_is_the_solution_of_the_quadratic_program():
    _, values, candidates = drawn(0)
    found = projected(3 * values, candidates)
    assert (found[~candidates] == 0).all()
    for row, wanted, allowed in zip(found.double().numpy(), 3 * values.double().numpy(), candidates, strict=True):
        solved = minimize(
            lambda p, wanted=wanted: ((p - wanted) ** 2).sum(),
            uniform(allowed[None])[0].double().numpy(),
            jac=lambda p, wanted=wanted: 2 * (p - wanted),
            bounds=[(0, float(one)) for one in allowed],
            constraints={"type": "eq", "fun": lambda p: p.sum() - 1, "jac": np.ones_like},
            method="SLSQP",
            options={"ftol": 1e-12},
        )
        np.testing.assert_allclose(row, solved.x, atol=1e-5)


def test_shares_within_the_candidates_are_the_softmax_renormalised():
    _, logits, candidates = drawn(1)
    kept = logits.softmax(1) * candidates
    torch.testing.assert_close(within(logits, candidates), kept / kept.sum(1, keepdim=True))


def test_answers_for_one_window_are_averaged():
    rows, values = torch.tensor([7, 2, 7, 7]), torch.tensor([[1.0, 0], [5, 5], [2, 1], [3, 2]])
    places, means = mean_by_row(rows, values)
    assert places.tolist() == [2, 7]
    torch.testing.assert_close(means, torch.tensor([[5.0, 5], [2, 1]]))


@EVERY_METHOD
def test_one_candidate_a_window_gives_the_gradients_of_plain_training(name):
    features, logits, _ = drawn(2)
    labels = torch.arange(12) % CLASSES
    method = PARTIAL_LABEL_METHODS.get(name)(functional.one_hot(labels, CLASSES).bool(), 4, label_smoothing=0.1)
    plain = logits.clone().requires_grad_()
    functional.cross_entropy(plain, labels, label_smoothing=0.1).backward()
    for _ in range(3):
        torch.testing.assert_close(gradient_of(method, features, logits, torch.arange(12)), plain.grad)
        stepped(method, features, logits, 3)


@EVERY_METHOD
def test_windows_that_may_be_anything_teach_nothing_to_a_network_without_an_opinion(name):
    features, _, _ = drawn(3)
    method = PARTIAL_LABEL_METHODS.get(name)(torch.ones(12, CLASSES, dtype=torch.bool), 4)
    for _ in range(4):
        gradient = gradient_of(method, features, torch.zeros(12, CLASSES), torch.arange(12))
        torch.testing.assert_close(gradient, torch.zeros(12, CLASSES), rtol=0, atol=1e-7)
        stepped(method, features, torch.zeros(12, CLASSES), 1)


@EVERY_METHOD
def test_beliefs_are_distributions_over_the_candidates_and_follow_the_names_of_the_classes(name):
    features, logits, candidates = drawn(4)
    order = torch.randperm(CLASSES, generator=torch.Generator().manual_seed(0))
    one = PARTIAL_LABEL_METHODS.get(name)(candidates, 4)
    other = PARTIAL_LABEL_METHODS.get(name)(candidates[:, order], 4)
    stepped(one, features, logits, 3)
    stepped(other, features, logits[:, order], 3)
    torch.testing.assert_close(one.confidence[:, order], other.confidence)
    torch.testing.assert_close(one.confidence.sum(1), torch.ones(12))
    assert (one.confidence[~candidates] == 0).all()
    assert (one.confidence >= 0).all()


def test_the_average_loss_has_the_gradient_of_the_mean_over_candidates():
    features, logits, candidates = drawn(5)
    method = PARTIAL_LABEL_METHODS.get("average")(candidates, 4)
    stepped(method, features, logits, 2)
    wanted = torch.zeros_like(logits)
    for row in range(12):
        of = candidates[row].nonzero().squeeze(1).tolist()
        for true in of:  # of -log softmax
            wanted[row] += (logits[row].softmax(0) - functional.one_hot(torch.tensor(true), CLASSES)) / len(of) / 12
    torch.testing.assert_close(gradient_of(method, features, logits, torch.arange(12)), wanted)


def test_proden_weighs_candidates_by_the_last_answer_so_that_repeating_it_changes_nothing_among_them():
    features, logits, candidates = drawn(6)
    method = PARTIAL_LABEL_METHODS.get("proden")(candidates, 4)
    first = gradient_of(method, features, logits, torch.arange(12))
    shares = logits.softmax(1)
    torch.testing.assert_close(first, (shares - uniform(candidates)) / 12)
    total = (shares * candidates).sum(1, keepdim=True)
    second = gradient_of(method, features, logits, torch.arange(12))
    torch.testing.assert_close(second, (shares - candidates * shares / total) / 12)
    anything = candidates.all(1)
    assert (second[anything].abs() < 1e-7).all()


def test_pl_cl_solves_its_objective_for_either_belief():
    features, logits, candidates = drawn(7)
    method: Any = PARTIAL_LABEL_METHODS.get("pl_cl")(candidates, 4)
    stepped(method, features, logits, 4)
    before = method.confidence.double().numpy().copy()
    against = method.complementary(features).sigmoid().detach().double().numpy()
    ordinary, allowed = logits.softmax(1).double().numpy(), candidates.numpy()

    def objective(p: np.ndarray, q: np.ndarray, row: int) -> float:
        fits = ((ordinary[row] - p) ** 2).sum() + ALPHA * ((against[row] - q) ** 2).sum()
        return fits + BETA * ((1 - p - q) ** 2).sum()

    loss = method(features, logits, torch.arange(12))
    fitted = 0.0
    for row in range(12):
        exact = {"method": "SLSQP", "options": {"ftol": 1e-13}}
        lower = 1 - allowed[row].astype(float)
        q = minimize(
            lambda q, row=row: objective(before[row], q, row), lower, bounds=[(low, 1) for low in lower], **exact
        ).x
        p = minimize(
            lambda p, q=q, row=row: objective(p, q, row),
            before[row],
            bounds=[(0, 1 - low) for low in lower],
            constraints={"type": "eq", "fun": lambda p: p.sum() - 1},
            **exact,
        ).x
        np.testing.assert_allclose(method.confidence[row].numpy(), p, atol=1e-4)
        fitted -= (q * np.log(against[row]) + (1 - q) * np.log(1 - against[row])).sum() / 12 / CLASSES
    own = functional.cross_entropy(logits, torch.from_numpy(before).float())
    assert float(loss.detach() - own) == pytest.approx(fitted, abs=1e-4)


def test_plcp_takes_both_turns_as_written():
    features, logits, candidates = drawn(8)
    method: Any = PARTIAL_LABEL_METHODS.get("plcp")(candidates, 4)
    stepped(method, features, logits, 4)
    said, denied, target = (getattr(method, name).double().numpy().copy() for name in ("said", "denied", "confidence"))
    against = method.partner(features).sigmoid().detach().double().numpy()
    answer, allowed = logits.softmax(1).double().numpy(), candidates.numpy().astype(float)
    method.zero_grad()
    loss = method(features, logits, torch.arange(12))
    loss.backward()
    fitted, pull = 0.0, np.zeros(CLASSES)
    for row in range(12):
        said[row] = np.clip(MOMENTUM * said[row] + (1 - MOMENTUM) * answer[row], 0, allowed[row])
        denied[row] = np.clip(MOMENTUM * denied[row] + (1 - MOMENTUM) * against[row], 1 - allowed[row], 1)
        blurred, prior = (np.exp(BLUR * belief) * allowed[row] for belief in (said[row], 1 - denied[row]))
        blurred, weights = blurred / blurred.sum(), prior * answer[row]
        q = minimize(
            lambda q, row=row, blurred=blurred: ((q - against[row]) ** 2).sum() + COLLABORATION * (blurred * q).sum(),
            1 - uniform(candidates[row : row + 1])[0].numpy(),
            bounds=[(1 - one, 1) for one in allowed[row]],
            constraints={"type": "eq", "fun": lambda q: q.sum() - (CLASSES - 1)},
            method="SLSQP",
            options={"ftol": 1e-13},
        ).x
        fitted -= (q * np.log(against[row]) + (1 - q) * np.log(1 - against[row])).sum() / 12 / CLASSES
        pull += (against[row] - q) / 12 / CLASSES
        np.testing.assert_allclose(method.confidence[row].numpy(), weights / weights.sum(), atol=1e-5)
    np.testing.assert_allclose(method.partner.bias.grad.numpy(), pull, atol=1e-5)
    np.testing.assert_allclose(method.said.numpy(), said, atol=1e-6)
    np.testing.assert_allclose(method.denied.numpy(), denied, atol=1e-6)
    own = functional.cross_entropy(logits, torch.from_numpy(target).float())
    assert float(loss.detach() - own) == pytest.approx(fitted, abs=1e-4)


def disambiguated(name: str, seed: int) -> tuple[float, float]:
    """Train a linear network on six clouds, half of all wrong labels candidates; return accuracy on them and on new."""
    generator = torch.Generator().manual_seed(seed)
    centres = 0.8 * torch.randn(6, 20, generator=generator)
    labels, fresh = (torch.randint(6, (count,), generator=generator) for count in (120, 2000))
    x, new = (centres[each] + torch.randn(len(each), 20, generator=generator) for each in (labels, fresh))
    candidates = torch.rand(120, 6, generator=generator) < 0.5
    candidates[torch.arange(120), labels] = True
    method, network = PARTIAL_LABEL_METHODS.get(name)(candidates, 20), nn.Linear(20, 6)
    nn.init.zeros_(network.weight)
    nn.init.zeros_(network.bias)
    optimizer = torch.optim.Adam([*network.parameters(), *method.parameters()], lr=2e-2)
    for _ in range(200):
        rows = torch.randint(120, (32,), generator=generator)
        optimizer.zero_grad()
        method(x[rows], network(x[rows]), rows).backward()
        optimizer.step()
    chosen = within(network(x), candidates).argmax(1)
    return float((chosen == labels).float().mean()), float((network(new).argmax(1) == fresh).float().mean())


def test_every_method_finds_more_true_labels_than_the_average_loss():
    found = {
        name: np.mean([disambiguated(name, seed) for seed in range(3)], axis=0)
        for name in PARTIAL_LABEL_METHODS.names()
    }
    for name in set(found) - {"average"}:
        assert (found[name] > found["average"] + 0.08).all(), (name, found)


def test_a_window_without_a_candidate_is_refused():
    with pytest.raises(DataError, match="every window must have one or more, got 2 without"):
        PARTIAL_LABEL_METHODS.get("average")(torch.eye(4, dtype=torch.bool)[[0, 1]] & torch.tensor(False), 3)


def test_in_every_batch_a_window_stands_for_one_of_its_candidates_evenly():
    candidates = torch.tensor([[1, 0, 0], [1, 1, 0], [1, 1, 1]]).bool()
    listed = listed_classes(candidates, seed=3)
    draws = torch.stack([listed(index) for index in range(1500)])
    assert torch.equal(draws, torch.stack([listed_classes(candidates, seed=3)(index) for index in range(1500)]))
    shares = torch.stack([(draws == label).float().mean(0) for label in range(3)], dim=1)
    torch.testing.assert_close(shares, uniform(candidates), rtol=0, atol=0.05)
    assert (shares[~candidates] == 0).all()


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


def timed() -> WindowSet:
    """Return windows of 2 s: one session of two devices worn at once, and two other people's first session."""
    base = people(subjects=1, each=5).subset(np.arange(12))
    sessions = [f"diary/p{person}/walk_1/{place}" for person, place in ((0, "hip"), (0, "wrist"), (1, "hip"))]
    return dataclasses.replace(
        base,
        sessions=np.repeat(sessions, 4),
        placements=np.repeat(["hip", "wrist", "hip"], 4),
        start_s=np.tile([10.0, 12.0, 14.0, 16.0], 3),
        labels=np.asarray([0, 1, 2, -1] * 3),
    )


def written(path, *rows: str):
    path.write_text("\n".join(["session,start_s,end_s,candidates", *rows, ""]), encoding="utf-8")
    return path


def test_windows_inside_a_stretch_take_its_candidates_and_all_others_keep_their_label(tmp_path):
    windows = timed()
    path = written(
        tmp_path / "diary.csv",
        "p0/walk_1,11.99,16.01,slow|fast",
        "p0/walk_1,14,18,middle",
        "diary/p1/walk_1/hip,9,13,middle | fast",
    )
    sets, told = candidate_sets(windows, read_candidates(path, windows.classes))
    of_p0 = [[1, 0, 0], [1, 0, 1], [1, 1, 1], [0, 1, 0]]
    of_p1 = [[0, 1, 1], [0, 1, 0], [0, 0, 1], [0, 0, 0]]
    assert sets.astype(int).tolist() == [*of_p0, *of_p0, *of_p1]
    assert told.astype(int).tolist() == [0, 1, 1, 1, 0, 1, 1, 1, 1, 0, 0, 0]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("p0/walk_1,18,10,slow", "row 2: end_s must come after start_s, got start_s 18, end_s 10"),
        ("p0/walk_1,,10,slow", "row 2: end_s must come after start_s, got start_s nan"),
        ("p0/walk_1,10,18,slow|fly", "row 2, column candidates: must be names among slow, middle, fast"),
        ("p0/walk_1,10,18,", "row 2, column candidates: must be names among"),
        ("p0/walk_1,ten,18,slow", "row 2, column start_s: must be a number"),
        ("p7/walk_1,10,18,slow", "column session: must name one session, got 0 for 'p7/walk_1'"),
        ("walk_1,10,18,slow", "must name one session, got 2 for 'walk_1': diary/p0/walk_1, diary/p1/walk_1"),
        ("p0/walk_1,10,11.9,slow", "a window of 2 s must fall inside a stretch, got none"),
    ],
)
def test_a_table_that_cannot_be_used_is_refused_by_row(row, message, tmp_path):
    windows = timed()
    with pytest.raises(DataError, match=message.replace("|", r"\|")):
        candidate_sets(windows, read_candidates(written(tmp_path / "diary.csv", row), windows.classes))


def test_a_table_without_its_columns_is_refused(tmp_path):
    path = tmp_path / "diary.csv"
    path.write_text("session,start_s,end_s,label\na,0,1,b\n", encoding="utf-8")
    with pytest.raises(DataError, match="columns 'candidates' must be in the header"):
        read_candidates(path, ("a", "b"))


POPULATION = 'population={"subjects": 4, "bout_s": 14, "sessions": 1, "activities": ["sit", "walk", "run"]}'
DATA = ["--data", "synthetic", "--seconds", "2", "--data-options", POPULATION, "--method", "scratch", "--steps", "3"]


def test_the_command_trains_on_a_diary_beside_few_labels(tmp_path, capsys):
    options = DataOptions(data="synthetic", seconds=2.0, data_options=(POPULATION,))
    found, _ = load_windows(options)
    rows = [
        f"{session},{start},{start + 2},{found.classes[label]}|{found.classes[(label + 1) % 3]}"
        for session, start, label in zip(found.sessions, found.start_s, found.labels, strict=True)
        if start % 4 == 0
    ]
    table = written(tmp_path / "diary.csv", *rows)
    asked = [*DATA, "--shots", "2", "--candidates", str(table), "--partial", "plcp", "--out", str(tmp_path / "run")]
    assert run_commands("imu_saga", COMMANDS, ["finetune", *asked]) == 0
    shown = capsys.readouterr().out
    assert "6 labelled windows, " in shown
    assert " with 2.0 candidates on average" in shown
    stored = json.loads((tmp_path / "run" / "results.json").read_text())
    on_the_training_side = ~np.isin(found.subjects, stored["details"]["test_subjects"])
    assert stored["details"]["candidate_windows"] == int((on_the_training_side & (found.start_s % 4 == 0)).sum())
    assert stored["details"]["shots"] == 2
    again = tmp_path / "again.json"
    assert run_commands("imu_saga", COMMANDS, ["evaluate", str(tmp_path / "run"), "--out", str(again)]) == 0
    capsys.readouterr()
    assert json.loads(again.read_text()) == stored["scores"]
    held_out = stored["details"]["test_subjects"][0]
    only = written(tmp_path / "other.csv", *[row for row in rows if f"/{held_out}/" in row])
    asked = [*DATA, "--shots", "2", "--candidates", str(only), "--out", str(tmp_path / "refused")]
    assert run_commands("imu_saga", COMMANDS, ["finetune", *asked]) == 2
    assert "must speak of at least one window of the training side" in capsys.readouterr().err
