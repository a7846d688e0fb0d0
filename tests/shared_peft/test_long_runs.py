"""What long runs need: averaged weights, an early stop, and the same end however often the process is killed."""

import contextlib
import multiprocessing
import os
import random
import signal
import time
from pathlib import Path

import pytest
import torch
from torch import nn

from shared_peft.errors import ConfigError, TrainingError
from shared_peft.training import Batch, RunFolder, train
from shared_peft.training.average import WeightAverage
from tests.shared_peft.test_training import DATA, batches, config, folder_at, network, objective, weights

LONG = {"ema_decay": 0.9, "gradient_accumulation": 2, "validate_every": 2, "patience": 3, "steps": 40}


def held_out(model: nn.Module) -> float:
    """Score the model; it falls for some steps, then rises, since the learning rate is far too high."""
    torch.rand(3)
    return float(nn.functional.mse_loss(model(DATA[:10] ** 3), DATA[:10]))


def parameters(model: nn.Module) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def test_the_average_is_the_recursion_over_the_weights_of_every_step() -> None:
    model, history = network(), []
    expected = parameters(model).double()
    train(
        model,
        objective,
        batches,
        config(ema_decay=0.6),
        after_step=lambda *_: history.append(parameters(model).clone()),
    )
    for update, live in enumerate(history):
        decay = min(0.6, (1 + update) / (10 + update))
        expected = decay * expected + (1 - decay) * live.double()
    assert len({min(0.6, (1 + n) / (10 + n)) for n in range(12)}) > 5, "the warm-up is seen"
    torch.testing.assert_close(parameters(model).double(), expected, rtol=1e-5, atol=1e-6)
    assert not torch.allclose(parameters(model), history[-1], atol=1e-4)


@pytest.mark.parametrize("decay", [-0.1, 0.0, 1.0, 1.5])
def test_an_average_that_never_moves_or_never_remembers_is_refused(decay: float) -> None:
    with pytest.raises(ConfigError, match=rf"ema_decay: must be in \(0, 1\), .* got {decay}"):
        WeightAverage(network(), decay)


def test_the_average_leaves_buffers_and_frozen_weights_as_training_left_them() -> None:
    models = [network(), network()]
    for model, decay in zip(models, (0.0, 0.9), strict=True):
        model[3].requires_grad_(False)
        train(model, objective, batches, config(ema_decay=decay))
    plain, averaged = models
    assert torch.equal(plain[1].running_mean, averaged[1].running_mean)
    assert int(averaged[1].num_batches_tracked) == 12
    assert torch.equal(plain[3].weight, averaged[3].weight)
    assert not torch.equal(plain[0].weight, averaged[0].weight)


@pytest.mark.parametrize(
    ("scores", "patience", "steps", "kept"),
    [
        ([5.0, 3.0, 4.0, 4.0, 1.0], 2, 8, 4),
        ([5.0, 4.0, 3.0, 4.0, 2.0, 3.0], 2, 12, 10),
        ([5.0, 1.0] + 4 * [2.0], 0, 12, 4),
    ],
)
def test_training_ends_after_patience_and_keeps_the_weights_of_the_best_score(
    scores: list[float], patience: int, steps: int, kept: int
) -> None:
    given, seen = iter(scores), {}

    def validate(model: nn.Module) -> float:
        assert not model.training
        assert not torch.is_grad_enabled()
        score = next(given)
        seen[score] = weights(model)
        return score

    model = network()
    result = train(model, objective, batches, config(validate_every=2, patience=patience), validate=validate)
    assert (result.steps, result.kept_step, result.rows) == (steps, kept, 8 * steps)
    assert torch.equal(weights(model), seen[min(seen)])
    assert model.training


def test_validation_does_not_change_what_is_learnt() -> None:
    ends = []
    for validate in (None, held_out):
        model, trained = network(), []
        train(
            model,
            objective,
            batches,
            config(validate_every=3),
            validate=validate,
            after_step=lambda step, _, model=model, trained=trained: trained.append(weights(model)),
        )
        ends.append(trained[-1])
    assert torch.equal(*ends)


def test_it_is_the_averaged_weights_that_are_validated_and_kept() -> None:
    seen = []

    def validate(model: nn.Module) -> float:
        seen.append(parameters(model))
        return -float(len(seen))

    averaged, watched = network(), network()
    train(averaged, objective, batches, config(ema_decay=0.9))
    train(watched, objective, batches, config(ema_decay=0.9, validate_every=4), validate=validate)
    assert torch.equal(parameters(watched), parameters(averaged))
    assert torch.equal(seen[-1], parameters(averaged))


def _long_run(path: Path, pause: float) -> None:
    torch.set_num_threads(1)
    model = network()
    train(
        model,
        objective,
        batches,
        config(**LONG),
        folder=folder_at(path, resume=True),
        resume=True,
        validate=held_out,
        after_step=lambda *_: time.sleep(pause),
    )
    torch.save(weights(model), path / "end.pt")


def test_a_run_killed_again_and_again_ends_like_the_uninterrupted_one(tmp_path: Path) -> None:
    _long_run(tmp_path / "whole", 0.0)
    context, chance, kills = multiprocessing.get_context("forkserver"), random.Random(0), 0
    context.set_forkserver_preload(["tests.shared_peft.test_long_runs", "accelerate", "torch._dynamo"])
    while not (tmp_path / "killed" / "end.pt").exists():
        process = context.Process(target=_long_run, args=(tmp_path / "killed", 0.02))
        process.start()
        before = _steps(tmp_path / "killed")
        while kills < 5 and process.is_alive() and _steps(tmp_path / "killed") <= before:
            time.sleep(0.002)
        process.join(chance.uniform(0.0, 0.06) if kills < 5 else None)
        if process.is_alive():
            os.kill(process.pid, signal.SIGKILL)
            process.join()
            kills += 1
        else:
            assert process.exitcode == 0
    assert kills == 5
    assert torch.equal(torch.load(tmp_path / "killed" / "end.pt"), torch.load(tmp_path / "whole" / "end.pt"))
    logs = [RunFolder(tmp_path / name).read_log() for name in ("whole", "killed")]
    whole, killed = ([{key: value for key, value in row.items() if key != "seconds"} for row in log] for log in logs)
    assert killed == whole
    assert len(whole) < 40, "the early stop is part of what was killed"


def test_a_run_stopped_after_every_single_step_ends_like_the_uninterrupted_one(tmp_path: Path) -> None:
    class Stopped(Exception):  # noqa: N818
        """Stands for a kill between two steps."""

    whole, steps = network(), config(**LONG)
    expected = train(whole, objective, batches, steps, validate=held_out)
    for _ in range(expected.steps):
        model, folder, done = network(), folder_at(tmp_path, resume=True), _steps(tmp_path)

        def one_more(index: int, done: int = done) -> Batch:
            if index // 2 > done:
                raise Stopped
            return batches(index)

        with contextlib.suppress(Stopped):
            train(model, objective, one_more, steps, folder=folder, resume=True, validate=held_out)
    assert done == expected.steps - 1
    assert _steps(tmp_path) == expected.steps < 40
    assert torch.equal(weights(model), weights(whole))


def _steps(path: Path) -> int:
    rows = RunFolder(path).read_log()
    return rows[-1]["step"] if rows else 0


def test_a_checkpoint_of_a_run_without_average_is_refused(tmp_path: Path) -> None:
    train(network(), objective, batches, config(steps=2), folder=folder_at(tmp_path))
    with pytest.raises(TrainingError, match="must hold the state of average, optimizer, got optimizer"):
        train(
            network(),
            objective,
            batches,
            config(steps=4, ema_decay=0.9),
            folder=folder_at(tmp_path, resume=True),
            resume=True,
        )


def test_a_model_trained_in_16_bits_answers_in_32_again() -> None:
    model, plain = network(), network()
    train(model, objective, batches, config(mixed_precision="bf16"))
    train(plain, objective, batches, config())
    assert not torch.equal(weights(model), weights(plain))
    plain.load_state_dict(model.state_dict())
    assert torch.equal(model.eval()(DATA), plain.eval()(DATA))
    assert "forward" not in vars(model)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"ema_decay": 1.0}, r"TrainConfig\.ema_decay: must be in \[0, 1\), got 1"),
        ({"validate_every": 0}, r"TrainConfig\.validate_every: must be at least 1, got 0"),
        ({"mixed_precision": "fp16"}, "must be no or bf16 on a CPU, got fp16"),
    ],
)
def test_options_that_cannot_be_are_refused(changes: dict, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match=said):
        train(network(), objective, batches, config(**changes))


def test_the_progress_bar_shows_rows_a_second(capsys: pytest.CaptureFixture[str]) -> None:
    train(network(), objective, batches, config(), progress="here")
    shown = capsys.readouterr().err
    assert "here: 100%" in shown
    assert "rows/s" in shown
