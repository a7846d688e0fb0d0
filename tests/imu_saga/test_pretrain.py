"""Pre-training: what is learnt, what is counted, resuming, starting from checkpoints, and cost of the masks."""

import dataclasses
import json
import os
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from imu_saga.card import read_card
from imu_saga.commands import COMMANDS
from imu_saga.encoder import build_encoder, load_encoder
from imu_saga.held_out import held_out_loss, people_aside
from imu_saga.input_spec import InputSpec
from imu_saga.masking_level import MASKING_LEVELS
from imu_saga.mixture import normalised_weights
from imu_saga.objectives import OBJECTIVES
from imu_saga.objectives.rebuild import Rebuilder
from imu_saga.pretrain import EQUAL_WEIGHTS, PretrainConfig, mask_batches, pretrain
from imu_saga.recording import ACC_CHANNELS, IMU_CHANNELS
from imu_saga.signal.features import window_features
from shared_peft.command import run_commands
from shared_peft.errors import CheckpointError, DataError, RunError, TrainingError, UnknownNameError
from shared_peft.training import RunFolder
from shared_peft.weights import read_tensors
from tests.imu_saga.planted import people

SMALL = {"width": 16, "depth": 1, "heads": 2}
TINY = PretrainConfig(steps=6, batch_size=16, options=SMALL)
REBUILD = {"objective": "rebuild", "augment": {}}


def folder(path) -> RunFolder:
    return RunFolder.create(path, "imu_saga.pretrain", {}, resume=True)


def test_the_loss_counts_hidden_and_measured_entries_only():
    encoder = build_encoder("saga", InputSpec(IMU_CHANNELS, 20.0, 40), SMALL)
    model = Rebuilder(encoder).eval()
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(3, 40, 6, generator=generator)
    mask = torch.rand(3, 40, 6, generator=generator) < 0.3
    valid = torch.rand(3, 40, generator=generator) < 0.8
    mask[2] = False
    with torch.no_grad():
        found = model(x, mask, valid, x)
        guess = model.decoder(model.encoder(torch.where(mask, 0.0, x)))
    for row in range(2):
        errors = [
            (float(guess[row, t, c]) - float(x[row, t, c]) / (9.80665 if c < 3 else 1.0)) ** 2
            for t in range(40)
            for c in range(6)
            if mask[row, t, c] and valid[row, t]
        ]
        assert float(found[row]) == pytest.approx(np.mean(errors), rel=1e-4)
    assert float(found[2]) == 0.0


def test_pretraining_rebuilds_better_than_the_mean_of_the_window():
    windows = people(subjects=3)
    windows = windows.subset(windows.labels < 2)
    options = {"width": 32, "depth": 1, "heads": 2}
    config = PretrainConfig(
        steps=150, batch_size=32, learning_rate=4e-3, options=options, weights={"point": 1.0}, **REBUILD
    )
    model, _ = pretrain(windows, config, progress=None)
    batches = mask_batches(windows, {"point": 1.0}, dataclasses.replace(config, seed=99))
    x, mask, valid, *_ = batches(0)
    with torch.no_grad():
        loss = float(model(x, mask, valid, x).mean())
    truth = model.encoder.scaled(x)
    seen = torch.where(mask, torch.nan, truth)
    naive = (truth - seen.nanmean(1, keepdim=True)).square()[mask].mean()
    assert loss < 0.5 * float(naive)


def test_batches_depend_on_seed_and_number_only():
    windows = people(subjects=2)
    first, again = (mask_batches(windows, EQUAL_WEIGHTS, TINY) for _ in range(2))
    again(0)
    for one, other in zip(first(3), again(3), strict=True):
        assert torch.equal(one, other)
    assert not torch.equal(first(3)[1], first(4)[1])


@pytest.mark.parametrize("mixing", ["draw", "sum"])
def test_a_killed_run_resumes_to_the_same_weights(tmp_path, monkeypatch, mixing):
    windows = people(subjects=2)
    config = dataclasses.replace(TINY, steps=20, mixing=mixing)
    whole, _ = pretrain(windows, config, folder(tmp_path / "whole"), progress=None)
    import imu_saga.pretrain as module

    original = module.mask_batches

    def dying(*args):
        inner = original(*args)

        def batch(index):
            if index == 13:
                raise KeyboardInterrupt
            return inner(index)

        return batch

    monkeypatch.setattr(module, "mask_batches", dying)
    with pytest.raises(KeyboardInterrupt):
        pretrain(windows, config, folder(tmp_path / "killed"), progress=None)
    monkeypatch.setattr(module, "mask_batches", original)
    resumed, result = pretrain(windows, config, folder(tmp_path / "killed"), resume=True, progress=None)
    assert result.steps == 7
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name


def test_the_log_holds_a_loss_for_every_level(tmp_path):
    pretrain(
        people(subjects=2), dataclasses.replace(TINY, steps=4, batch_size=64), folder(tmp_path / "a"), progress=None
    )
    rows = [json.loads(line) for line in (tmp_path / "a" / "metrics.jsonl").read_text().splitlines()]
    assert {f"loss_{name}" for name in EQUAL_WEIGHTS} <= rows[-1].keys()
    assert len(rows) == 4


@pytest.mark.parametrize("objective", OBJECTIVES.names())
def test_a_checkpoint_is_read_back_and_goes_on(tmp_path, objective):
    windows = people(subjects=2)
    config = dataclasses.replace(TINY, objective=objective)
    model, _ = pretrain(windows, config, folder(tmp_path / "a"), progress=None)
    card = read_card(tmp_path / "a")
    assert card.input == InputSpec(IMU_CHANNELS, 20.0, 40)
    assert card.as_json()["units"] == ["m/s^2"] * 3 + ["rad/s"] * 3
    name, encoder, beside = load_encoder(tmp_path / "a", "limu", {}, card.input)
    assert name == "saga"
    for key, tensor in model.encoder.state_dict().items():
        assert torch.equal(tensor, encoder.state_dict()[key])
    assert beside.keys() == {key for key in model.state_dict() if not key.startswith("encoder.")} != set()
    frozen = dataclasses.replace(config, learning_rate=1e-12, weight_decay=0.0, steps=1)
    on, _ = pretrain(windows, frozen, start=tmp_path / "a", progress=None)
    torch.testing.assert_close(on.state_dict(), model.state_dict())


def test_a_checkpoint_of_six_channels_reads_an_accelerometer_alone(tmp_path):
    pretrain(people(subjects=2), TINY, folder(tmp_path / "a"), progress=None)
    _, encoder, _ = load_encoder(tmp_path / "a", "saga", {}, InputSpec(ACC_CHANNELS, 20.0, 60))
    assert encoder(torch.zeros(1, 60, 3)).shape == (1, 30, 16)


def test_wrong_checkpoints_are_refused(tmp_path, shared_root):
    pretrain(people(subjects=2), TINY, folder(tmp_path / "a"), progress=None)
    with pytest.raises(CheckpointError, match="must have the checkpoint's rate of 20 Hz, got 50 Hz. Use --rate-hz 20"):
        load_encoder(tmp_path / "a", "saga", {}, InputSpec(IMU_CHANNELS, 50.0, 40))
    with pytest.raises(DataError, match="channels must be among acc_x.*mag_x"):
        load_encoder(tmp_path / "a", "saga", {}, InputSpec(("mag_x",), 20.0, 40))
    with pytest.raises(RunError, match=r"must hold model.json.*finished pretrain or finetune run"):
        load_encoder(tmp_path, "saga", {}, InputSpec(IMU_CHANNELS, 20.0, 40))
    limu = shared_root / "weights" / "limu_bert" / "pretrain_base_uci_20_120.pt"
    with pytest.raises(CheckpointError, match="names and shapes must be those of SagaEncoder"):
        load_encoder(limu, "saga", {}, InputSpec(IMU_CHANNELS, 20.0, 120))
    other = limu.with_name("limu_bert_x.pt")
    with pytest.raises(CheckpointError, match=r"position.weight \(20, 72\) instead of \(120, 72\)"):
        load_encoder(other, "limu", {}, InputSpec(IMU_CHANNELS, 20.0, 120))
    assert "encoder.norm.weight" in read_tensors(tmp_path / "a" / "model.safetensors")


def test_what_cannot_be_pretrained_is_refused():
    windows = people(subjects=2)
    with pytest.raises(DataError, match="at least 2 windows, got 1"):
        pretrain(windows.subset(np.array([0])), TINY, progress=None)
    with pytest.raises(UnknownNameError, match="encoder: name must be one of"):
        pretrain(windows, dataclasses.replace(TINY, encoder="lstm"), progress=None)
    with pytest.raises(UnknownNameError, match="masking level: name must be one of"):
        pretrain(windows, dataclasses.replace(TINY, weights={"spans": 1.0}), progress=None)
    with pytest.raises(TrainingError, match="step 0: the loss must be finite, got nan"):
        pretrain(dataclasses.replace(windows, x=windows.x * np.float32("nan")), TINY, progress=None)


def test_masks_of_all_levels_cost_a_tenth_of_a_step():
    windows = people(subjects=6, each=8, samples=120)
    batches = mask_batches(windows, EQUAL_WEIGHTS, PretrainConfig(batch_size=128))
    encoder = build_encoder("saga", InputSpec(IMU_CHANNELS, 20.0, 120))
    model = Rebuilder(encoder)
    x, mask, valid, *_ = batches(0)
    model(x, mask, valid, x).mean().backward()

    def seconds(call) -> float:
        taken = []
        for index in range(3):
            start = time.process_time()
            call(index)
            taken.append(time.process_time() - start)
        return min(taken)

    step = seconds(lambda index: model(x, mask, valid, x).mean().backward())
    assert seconds(batches) < 0.1 * step


def test_people_kept_aside_are_never_trained_on_and_never_all():
    windows = people(subjects=5)
    train, aside = people_aside(windows, 0.4, seed=1)
    assert (len(np.unique(train.subjects)), len(np.unique(aside.subjects))) == (3, 2)
    assert not set(train.subjects) & set(aside.subjects)
    assert len(train) + len(aside) == len(windows)
    again, other = (people_aside(windows, 0.4, seed)[1] for seed in (1, 2))
    assert set(again.subjects) == set(aside.subjects) != set(other.subjects)
    with pytest.raises(DataError, match="needs 2 people or more to train on, got 1. Set patience to 0"):
        pretrain(people(subjects=1), dataclasses.replace(TINY, patience=1), progress=None)


def test_the_held_out_loss_is_the_weighted_sum_over_levels_whatever_the_parts(monkeypatch):
    windows, weights = people(subjects=2), {"period": 0.0, "point": 0.3, "sensor": 0.7, "sub_period": 0.0}
    encoder = build_encoder("saga", InputSpec(IMU_CHANNELS, 20.0, 40), SMALL)
    model = Rebuilder(encoder).eval()
    monkeypatch.setattr("imu_saga.held_out.ROWS_AT_ONCE", 7)
    score = held_out_loss(windows, weights, seed=3)
    generator = torch.Generator().manual_seed(3)
    x = torch.from_numpy(windows.x)[torch.randperm(len(windows), generator=generator).sort().values]
    valid = torch.ones(x.shape[:2], dtype=torch.bool)
    expected = 0.0
    with torch.no_grad():
        for name in ("point", "sensor"):
            mask = MASKING_LEVELS.get(name)().draw(x, valid, generator, rate_hz=20.0, channels=IMU_CHANNELS)
            guess, truth = model.rebuild(x, mask)
            errors = [float((g - t)[m].square().mean()) for g, t, m in zip(guess, truth, mask, strict=True)]
            expected += weights[name] * float(np.mean(errors))
        assert score(model) == pytest.approx(expected, rel=1e-5)
        assert score(model) == score(model)


def test_an_early_stop_keeps_the_weights_that_rebuild_people_kept_aside_best(tmp_path):
    windows = people(subjects=4)
    config = dataclasses.replace(TINY, steps=60, learning_rate=0.3, patience=2, validate_every=3, ema_decay=0.8)
    model, result = pretrain(windows, config, folder(tmp_path / "a"), progress=None)
    rows = [json.loads(line) for line in (tmp_path / "a" / "metrics.jsonl").read_text().splitlines()]
    scores = {row["step"]: row["validation"] for row in rows if "validation" in row}
    assert result.kept_step == min(scores, key=scores.__getitem__)
    assert result.steps == max(scores) == result.kept_step + 6 < 60
    _, aside = people_aside(windows, config.validation_fraction, config.seed)
    with torch.no_grad():
        score = held_out_loss(aside, normalised_weights(EQUAL_WEIGHTS), config.seed)(model)
    assert score == pytest.approx(min(scores.values()), rel=1e-6)
    assert result.rows == 16 * result.steps


def test_a_step_sees_all_its_batches_and_16_bits_stay_near_32(tmp_path):
    windows = people(subjects=2)
    config = dataclasses.replace(TINY, steps=3, gradient_accumulation=4)
    _, result = pretrain(windows, config, folder(tmp_path / "a"), progress=None)
    assert result.rows == 3 * 4 * 16
    rounded, _ = pretrain(windows, dataclasses.replace(config, precision="bf16"), progress=None)
    exact, _ = pretrain(windows, config, progress=None)
    worst = max(float((exact.state_dict()[name] - tensor).abs().max()) for name, tensor in rounded.state_dict().items())
    assert 0 < worst < 0.01


def test_two_launched_processes_write_what_one_writes(tmp_path, capsys):
    options = "--data synthetic --steps 4 --batch-size 15 --gradient-accumulation 2 --ema-decay 0.9 --patience 3"
    arguments = ["pretrain", *options.split(), "--validate-every", "2", "--encoder-options"]
    arguments += [f"{name}={value}" for name, value in SMALL.items()]
    assert run_commands("imu_saga", COMMANDS, [*arguments, "--out", str(tmp_path / "one")]) == 0
    said = capsys.readouterr().out
    launch = "-m accelerate.commands.launch --multi_gpu --num_processes 2 --num_machines 1 --mixed_precision no"
    call = [sys.executable, *launch.split(), "--dynamo_backend", "no", "--main_process_port", "0", "-m", "imu_saga"]
    call += [*arguments, "--out", str(tmp_path / "two")]
    one_thread = {**os.environ, "OMP_NUM_THREADS": "1"}
    launched = subprocess.run(call, env=one_thread, capture_output=True, text=True, check=False, timeout=120)
    assert launched.returncode == 0, launched.stderr
    for text in (said, launched.stdout):
        assert text.count("windows to train on") == text.count("4 steps in") == 1
    one, two = (read_tensors(tmp_path / name / "model.safetensors") for name in ("one", "two"))
    torch.testing.assert_close(two, one, rtol=1e-3, atol=2e-5)
    logs = [RunFolder(tmp_path / name).read_log() for name in ("one", "two")]
    for first, second in zip(*logs, strict=True):
        for key in ("step", "loss", "lr", "validation"):
            assert second.get(key, 0.0) == pytest.approx(first.get(key, 0.0), rel=1e-4)
    files = [sorted(path.name for path in (tmp_path / name).iterdir()) for name in ("one", "two")]
    assert files[0] == files[1]


def test_the_told_statistics_are_those_of_the_window_before_augmentation_and_masking():
    windows = people(subjects=2)
    encoder = build_encoder("saga", InputSpec.of(windows), SMALL)
    model = OBJECTIVES.get("statistics")(encoder).eval()
    truth = torch.from_numpy(windows.x)
    model.prepare(truth)
    shown, mask = truth.flip(1), torch.rand(truth.shape, generator=torch.Generator().manual_seed(0)) < 0.5
    found = model(shown, mask, torch.ones(truth.shape[:2], dtype=torch.bool), truth)
    tokens = encoder(shown.masked_fill(mask, 0.0))
    told = model.teller(torch.cat([tokens.mean(1), tokens.amax(1)], 1)).detach().double().numpy()
    features = window_features(windows.x, 20.0, windows.channels).astype(np.float64)
    wanted = (features - features.mean(0)) / np.maximum(features.std(0, ddof=1), 1e-3)
    gap = np.abs(told - wanted.clip(-6, 6))
    huber = np.where(gap < 1, gap**2 / 2, gap - 0.5).mean(1)
    np.testing.assert_allclose(found.detach().numpy(), huber, rtol=1e-3)


def test_telling_statistics_is_learnt_and_tells_activities_apart():
    windows = people(subjects=4)
    config = PretrainConfig(steps=120, batch_size=32, learning_rate=3e-3, options={"width": 32, "depth": 1, "heads": 2})
    model, _ = pretrain(windows, config, progress=None)
    fresh = OBJECTIVES.get("statistics")(build_encoder("saga", InputSpec.of(windows), config.options))
    x = torch.from_numpy(windows.x)
    fresh.prepare(x)
    rest = (torch.zeros_like(x, dtype=torch.bool), torch.ones(x.shape[:2], dtype=torch.bool), x)
    with torch.no_grad():
        assert float(model(x, *rest).mean()) < 0.6 * float(fresh(x, *rest).mean())


def test_windows_are_shown_augmented_and_told_as_recorded():
    windows = people(subjects=2)
    shown, _, _, _, truth = mask_batches(windows, EQUAL_WEIGHTS, TINY)(0)
    plain, *_, same = mask_batches(windows, EQUAL_WEIGHTS, dataclasses.replace(TINY, augment={}))(0)
    assert torch.equal(plain, same)
    assert torch.equal(truth, same)
    assert not torch.allclose(shown, truth)
