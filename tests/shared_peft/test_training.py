"""The one training loop: deterministic, resumable after a kill, and clear when it cannot go on."""

import io
import json
import math
import multiprocessing
import os
import platform
import signal
import sys
import time
from pathlib import Path

import pytest
import torch
from torch import nn

from shared_peft import LoraTsdConfig, get_peft_model
from shared_peft.atomic import replacing
from shared_peft.errors import ConfigError, DataError, RunError, TrainingError
from shared_peft.training import Batch, RunFolder, TrainConfig, book, epoch_order, score_classification, train
from shared_peft.training.train_config import learning_rate_factor

DATA = torch.randn(40, 6, generator=torch.Generator().manual_seed(0))


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Dropout(0.3), nn.Linear(8, 6))


def objective(model: nn.Module, batch: Batch, step: int) -> tuple[torch.Tensor, dict[str, float]]:
    return nn.functional.mse_loss(model(batch[0]), batch[0]), {"phase": float(step)}


def batches(index: int) -> Batch:
    return [DATA[epoch_order(len(DATA), 8, index, seed=3)]]


def config(**changes: object) -> TrainConfig:
    return TrainConfig(**({"steps": 12, "learning_rate": 1e-2, "checkpoint_every": 1, "log_every": 1} | changes))


def folder_at(path: Path, *, resume: bool = False) -> RunFolder:
    return RunFolder.create(path, "test.train", {"a": 1}, resume=resume)


def weights(model: nn.Module) -> torch.Tensor:
    return torch.cat([tensor.flatten().double() for tensor in model.state_dict().values()])


def test_the_same_seed_gives_the_same_weights_and_another_seed_others() -> None:
    results = []
    for seed in (0, 0, 1):
        model = network()
        train(model, objective, batches, config(seed=seed))
        results.append(weights(model))
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])


def test_every_batch_draws_its_own_random_numbers_and_the_same_in_every_run() -> None:
    def drawn(seed: int) -> list[float]:
        found: list[float] = []

        def noted(model: nn.Module, batch: Batch, step: int) -> tuple[torch.Tensor, dict[str, float]]:
            found.append(float(torch.rand(())))
            return objective(model, batch, step)

        train(network(), noted, batches, config(seed=seed, gradient_accumulation=2))
        return found

    first = drawn(0)
    assert first == drawn(0)
    assert len({*first, *drawn(1)}) == 2 * len(first) == 48


def test_the_learning_rate_that_is_told_is_the_first_groups(tmp_path: Path) -> None:
    model, folder = network(), folder_at(tmp_path / "run")
    first, second = [*model[0].parameters()], [*model[3].parameters()]
    groups = [{"params": first, "lr": 1e-2}, {"params": second, "lr": 1e-3}]
    constant = config(schedule="constant", warmup_steps=1)
    train(model, objective, batches, constant, folder=folder, parameters=groups)
    assert {line["lr"] for line in folder.read_log()} == {1e-2}


def test_a_run_without_validation_keeps_no_step_before_the_last() -> None:
    assert train(network(), objective, batches, config()).kept_step == 0


@pytest.mark.parametrize("stop", [1, 5, 11])
def test_a_resumed_run_ends_in_the_weights_of_the_uninterrupted_one(stop: int, tmp_path: Path) -> None:
    whole = network()
    train(whole, objective, batches, config())

    class Interrupted(Exception):  # noqa: N818
        """Stands for a kill between two steps."""

    def interrupt(step: int, optimizer: object) -> None:
        if step == stop + 1:
            raise Interrupted

    first = network()
    with pytest.raises(Interrupted):
        train(first, objective, batches, config(), folder=folder_at(tmp_path), after_step=interrupt)
    second = network()
    result = train(second, objective, batches, config(), folder=folder_at(tmp_path, resume=True), resume=True)
    assert result.steps == 12 - stop
    assert torch.equal(weights(second), weights(whole))


def _slow_run(path: Path, threads: int) -> None:
    torch.set_num_threads(threads)

    def slow(step: int, optimizer: object) -> None:
        time.sleep(0.05)

    train(network(), objective, batches, config(), folder=folder_at(path, resume=True), resume=True, after_step=slow)


def test_a_killed_process_resumes_to_the_same_weights(tmp_path: Path) -> None:
    whole = network()
    train(whole, objective, batches, config())
    process = multiprocessing.get_context("spawn").Process(
        target=_slow_run, args=(tmp_path / "run", torch.get_num_threads())
    )
    process.start()
    while not (tmp_path / "run" / "checkpoint.pt").exists():
        time.sleep(0.02)
        assert process.is_alive()
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    model = network()
    folder = folder_at(tmp_path / "run", resume=True)
    assert train(model, objective, batches, config(), folder=folder, resume=True).steps < 12
    assert torch.equal(weights(model), weights(whole))
    assert folder.read_log()[-1]["step"] == 12


def test_accumulated_batches_make_the_step_of_one_large_batch() -> None:
    def plain(index: int) -> Batch:
        return [DATA[8 * index : 8 * index + 8]]

    def double(index: int) -> Batch:
        return [DATA[16 * index : 16 * index + 16]]

    models = [nn.Linear(6, 6), nn.Linear(6, 6)]
    models[1].load_state_dict(models[0].state_dict())
    train(models[0], objective, plain, config(steps=2, gradient_accumulation=2))
    train(models[1], objective, double, config(steps=2))
    assert torch.allclose(weights(models[0]), weights(models[1]), atol=1e-6)


def test_phases_follow_optimiser_steps_whatever_the_accumulation() -> None:
    model = get_peft_model(network(), LoraTsdConfig(r=2, warmup_steps=3))
    launched: list[int] = []

    def after(step: int, optimizer: torch.optim.Optimizer) -> None:
        model.update_and_allocate(step, optimizer)
        launched.append(int(model.base_model[0].adapters["default"]["weight"].launched_at))

    train(model, objective, batches, config(steps=5, gradient_accumulation=4), after_step=after)
    assert launched == [-1, -1, 3, 3, 3]


def test_frozen_parameters_and_their_optimiser_state_stay_out() -> None:
    model = get_peft_model(network(), LoraTsdConfig(r=2))
    before = {name: p.detach().clone() for name, p in model.named_parameters() if not p.requires_grad}
    train(model, objective, batches, config())
    assert all(torch.equal(before[name], p) for name, p in model.named_parameters() if name in before)


def test_a_loss_that_is_not_finite_stops_with_the_step_and_the_last_good_checkpoint(tmp_path: Path) -> None:
    def explode(model: nn.Module, batch: Batch, step: int) -> tuple[torch.Tensor, dict[str, float]]:
        loss, logs = objective(model, batch, step)
        return (loss * math.nan if step == 4 else loss), logs

    with pytest.raises(TrainingError, match=r"step 4: the loss must be finite, got nan, .*last good checkpoint is"):
        train(network(), explode, batches, config(), folder=folder_at(tmp_path))
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["step"] == 4


def test_nothing_to_train_is_refused() -> None:
    with pytest.raises(TrainingError, match="at least one parameter must require a gradient"):
        train(network().requires_grad_(False), objective, batches, config())


@pytest.mark.parametrize(("field", "value"), [("steps", 0), ("learning_rate", 0.0), ("gradient_accumulation", 0)])
def test_values_that_make_no_sense_are_refused(field: str, value: float) -> None:
    with pytest.raises(ConfigError, match=rf"TrainConfig\.{field}: must be .*, got {value}"):
        config(**{field: value})


def test_every_row_is_seen_once_an_epoch() -> None:
    for epoch in range(2):
        rows = torch.cat([epoch_order(40, 8, 5 * epoch + i, seed=1) for i in range(5)])
        assert sorted(rows.tolist()) == list(range(40))
    assert not torch.equal(epoch_order(40, 8, 0, seed=1), epoch_order(40, 8, 5, seed=1))
    assert epoch_order(3, 8, 0, seed=1).numel() == 3


@pytest.mark.parametrize("steps", [2, 5, 37])
def test_one_cycle_is_that_of_torch(steps: int) -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1.0, total_steps=steps)
    cycle = TrainConfig(steps, warmup_steps=1, schedule="onecycle")
    for step in range(steps):
        assert learning_rate_factor(step, cycle) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-6)
        optimizer.step()
        if step < steps - 1:
            scheduler.step()


def test_learning_rate_warms_up_and_falls_to_zero() -> None:
    cosine = config(steps=10, warmup_steps=4)
    factors = [learning_rate_factor(step, cosine) for step in range(11)]
    assert factors[:4] == [0.25, 0.5, 0.75, 1.0]
    assert factors[7] == pytest.approx(0.5)
    assert factors[10] == pytest.approx(0.0)
    assert learning_rate_factor(9, config(steps=10, schedule="constant")) == 1.0


def test_a_folder_with_a_run_is_not_overwritten_and_resumes_only_the_same_config(tmp_path: Path) -> None:
    folder_at(tmp_path / "run")
    with pytest.raises(RunError, match=r"must be a new folder.*--resume"):
        folder_at(tmp_path / "run")
    with pytest.raises(RunError, match=r"must keep its configuration, got changes in a"):
        RunFolder.create(tmp_path / "run", "test.train", {"a": 2}, resume=True)
    with pytest.raises(RunError, match=r"must be a run of kind vision, got test\.train"):
        RunFolder(tmp_path / "run").describe("vision")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").touch()
    with pytest.raises(RunError, match="must be a new or empty folder"):
        folder_at(tmp_path / "other")
    with pytest.raises(RunError, match=r"must be a run folder with config\.json"):
        RunFolder(tmp_path).describe()


def test_a_run_says_which_packages_made_it(tmp_path: Path) -> None:
    versions = json.loads((folder_at(tmp_path / "run").path / "config.json").read_text())["versions"]
    assert (versions["torch"], versions["python"]) == (torch.__version__, platform.python_version())


def test_what_a_kill_left_of_the_first_file_does_not_take_the_folder(tmp_path: Path) -> None:
    writing = replacing(tmp_path / "config.json")
    leftover = writing.__enter__()  # killed here: nobody leaves the block
    assert list(tmp_path.iterdir()) == [leftover]
    assert folder_at(tmp_path).describe()["kind"] == "test.train"


def test_two_runs_at_once_in_one_folder_are_refused(tmp_path: Path) -> None:
    folder = folder_at(tmp_path)
    with folder.locked():
        second = RunFolder(tmp_path).locked()
        with pytest.raises(RunError, match="must be used by one run at a time"):
            second.__enter__()
    with folder.locked():
        pass


def test_a_log_line_cut_off_by_a_kill_is_left_out(tmp_path: Path) -> None:
    folder = folder_at(tmp_path)
    folder.log(step=1, loss=0.5)
    with (tmp_path / "metrics.jsonl").open("a") as stream:
        stream.write('{"step": 2, "lo')
    assert folder.read_log() == [{"step": 1, "loss": 0.5}]


def test_scores_are_those_of_scikit_learn() -> None:
    from sklearn.metrics import accuracy_score, confusion_matrix, f1_score

    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(4, (200,), generator=generator)
    predicted = torch.where(torch.rand(200, generator=generator) < 0.6, labels, torch.randint(4, (200,)))
    scores = score_classification(predicted, labels, 4)
    assert scores.accuracy == pytest.approx(accuracy_score(labels, predicted))
    assert scores.macro_f1 == pytest.approx(f1_score(labels, predicted, average="macro"))
    assert scores.per_class_f1 == pytest.approx(f1_score(labels, predicted, average=None).tolist())
    assert scores.confusion == confusion_matrix(labels, predicted).tolist()
    assert scores.count == 200
    with pytest.raises(DataError, match="at least one sample, got 0"):
        score_classification(labels[:0], labels[:0], 4)


def test_a_bar_in_a_log_is_a_line_now_and_then_and_on_a_terminal_it_moves(monkeypatch):
    for terminal, most in ((False, 3), (True, 1000)):
        shown = io.StringIO()
        shown.isatty = lambda terminal=terminal: terminal
        monkeypatch.setattr(sys, "stderr", shown)
        monkeypatch.setattr(book, "ON_SCREEN_S", 0.0)
        told = book.Book(200, 0, None, "train")
        for step in range(200):
            told.keep(step + 1, 0.5, 8, {}, line=False)
        told.close()
        states = shown.getvalue().count("train:")
        assert states <= most
        assert terminal == (states > 50)
        assert "train: 100%" in shown.getvalue(), "the last state stays"
