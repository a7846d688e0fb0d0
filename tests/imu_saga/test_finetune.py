"""Fine-tuning with every method, runs on disk and back, baselines, augmentation, refusals."""

import dataclasses
import json

import numpy as np
import pytest
import torch

import imu_saga.finetune as finetune_module
from imu_saga.baselines import BASELINES
from imu_saga.evaluation.scores import check_apart, check_fits, score_labels, score_model
from imu_saga.finetune import FinetuneConfig, balanced_batches, finetune, method_names, predict_probabilities
from imu_saga.pretrain import PretrainConfig, pretrain
from imu_saga.recording import IMU_CHANNELS
from imu_saga.trained import FINETUNE_KIND, load_run, save_run
from imu_saga.windows import WindowSet
from shared_peft import METHODS, PeftModel
from shared_peft.errors import ConfigError, DataError, RunError, UnknownNameError
from shared_peft.training import RunFolder
from shared_peft.weights import read_tensors
from tests.imu_saga.planted import people

SMALL = {"width": 32, "depth": 1, "heads": 2}
QUICK = FinetuneConfig(steps=40, batch_size=24, r=2, learning_rate=1e-2)


@pytest.fixture(scope="module")
def windows() -> WindowSet:
    return people(subjects=5)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory, windows):
    path = tmp_path_factory.mktemp("pre") / "run"
    folder = RunFolder.create(path, "imu_saga.pretrain", {})
    pretrain(windows, PretrainConfig(steps=60, batch_size=32, options=SMALL), folder, progress=None)
    return path


def sides(windows: WindowSet) -> tuple[WindowSet, WindowSet]:
    test = windows.subjects == "p0"
    return windows.subset(~test), windows.subset(test)


def test_every_registered_method_can_be_asked_for():
    assert method_names() == ("auto", "full", "head", "discriminant", "scratch", *METHODS.names())


@pytest.mark.parametrize("method", method_names())
def test_a_run_learns_three_activities_and_comes_back_from_disk_unchanged(method, windows, checkpoint, tmp_path):
    train, test = sides(windows)
    config = dataclasses.replace(QUICK, method=method)
    folder = RunFolder.create(tmp_path / "run", FINETUNE_KIND, {"method": method})
    name, model = finetune(train, config, checkpoint=None if method == "scratch" else checkpoint, folder=folder)
    expected = predict_probabilities(model, test.x)
    assert score_model(model, test).accuracy > 0.8
    base = {key: t.clone() for key, t in read_tensors(checkpoint / "model.safetensors").items()}
    save_run(folder, name, model, test, {"scores": {"macro_f1": 0.5}, "details": {"seed": 0}})
    run = load_run(tmp_path / "run")
    torch.testing.assert_close(predict_probabilities(run.model, test.x), expected, rtol=1e-5, atol=1e-6)
    assert isinstance(run.model, PeftModel) == (method in METHODS)
    assert (tmp_path / "run" / "adapter").is_dir() == (method in METHODS)
    assert run.scores == {"macro_f1": 0.5}
    assert (run.kind, run.input_name, run.input_shape, run.classes) == ("imu_saga", "window", (40, 6), windows.classes)
    assert run.examples.shape == (8, 40, 6)
    assert run.preprocessing["units"] == ["m/s^2"] * 3 + ["rad/s"] * 3
    stored = read_tensors(tmp_path / "run" / "model.safetensors")
    same = all(torch.equal(stored[key], tensor) for key, tensor in base.items() if key.startswith("encoder."))
    if method != "scratch":
        assert same == (method != "full"), "adapters and the head leave the base alone"
    assert stored.keys() == run.build_base().state_dict().keys()


def test_the_same_seed_gives_the_same_model(windows, checkpoint):
    train, _ = sides(windows)
    config = dataclasses.replace(QUICK, method="lora_tsd", steps=8)
    (_, one), (_, other) = (finetune(train, config, checkpoint=checkpoint) for _ in range(2))
    (_, third) = finetune(train, dataclasses.replace(config, seed=1), checkpoint=checkpoint)
    probabilities = [predict_probabilities(model, train.x) for model in (one, other, third)]
    assert torch.equal(probabilities[0], probabilities[1])
    assert not torch.equal(probabilities[0], probabilities[2])


@pytest.mark.parametrize("method", METHODS.names())
def test_an_interrupted_run_ends_in_the_weights_of_an_uninterrupted_one(method, windows, checkpoint, tmp_path):
    train, _ = sides(windows)
    config = dataclasses.replace(QUICK, method=method, steps=8)

    def tuned(name: str, given: WindowSet, *, resume: bool = False) -> torch.Tensor:
        folder = RunFolder.create(tmp_path / name, FINETUNE_KIND, {}, resume=resume)
        _, model = finetune(given, config, checkpoint=checkpoint, folder=folder, resume=resume)
        return predict_probabilities(model, train.x)

    whole = tuned("whole", train)
    with pytest.MonkeyPatch.context() as patch:
        original, calls = finetune_module.functional.cross_entropy, []

        def interrupted(*given, **options):
            calls.append(1)
            if len(calls) == 6:
                raise KeyboardInterrupt
            return original(*given, **options)

        patch.setattr(finetune_module.functional, "cross_entropy", interrupted)
        with pytest.raises(KeyboardInterrupt):
            tuned("cut", train)
        resumed = tuned("cut", train, resume=True)
    assert len(calls) == 6 + 8 - 4
    assert torch.equal(whole, resumed)


@pytest.mark.parametrize("method", ["full", "head", "scratch", "lora", "flora"])
def test_with_every_option_the_same_seed_gives_the_same_bits(method, windows, checkpoint):
    train, _ = sides(windows)
    options = {"mixup": 0.4, "augment": {"rotation": {}, "time_warp": {}, "channel_drop": {}}}
    config = dataclasses.replace(QUICK, method=method, steps=6, **options)
    start = None if method == "scratch" else checkpoint
    states = []
    for seed in (0, 0, 1):
        torch.manual_seed(len(states))  # whatever torch's own generator holds must not matter
        states.append(finetune(train, dataclasses.replace(config, seed=seed), checkpoint=start)[1].state_dict())
    assert all(torch.equal(tensor, states[1][name]) for name, tensor in states[0].items())
    assert not all(torch.equal(tensor, states[2][name]) for name, tensor in states[0].items())


def test_batches_draw_the_classes_evenly_and_only_their_own_windows(windows):
    rows = np.concatenate([np.flatnonzero(windows.labels == 0)[:30], np.flatnonzero(windows.labels > 0)[:3]])
    few = windows.subset(np.append(rows, np.flatnonzero(windows.labels == 2)[:1]))
    batch = balanced_batches(few, dataclasses.replace(QUICK, batch_size=20, augment={}))
    counts = np.zeros(3)
    for index in range(30):
        x, labels = batch(index)
        each = np.bincount(labels.numpy(), minlength=3)
        assert each.max() - each.min() <= 1
        counts += each
        assert all(
            (few.x[few.labels == label] == window.numpy()).all((1, 2)).any()
            for window, label in zip(x, labels, strict=True)
        )
    assert counts.max() - counts.min() <= 12


def test_baselines_answer_as_their_definition(windows):
    train, test = sides(windows)
    few = train.subset(np.flatnonzero(train.labels >= 0)[:90])
    skewed = train.subset(np.append(np.flatnonzero(train.labels == 1), np.flatnonzero(train.labels == 0)[:3]))
    assert (BASELINES.get("majority")().fit(skewed).predict(test) == 1).all()
    forest = BASELINES.get("random_forest")(3)
    scored = score_labels(forest.fit(few).predict(test), test)
    assert scored.accuracy > 0.9
    again = BASELINES.get("random_forest")(3).fit(few).predict(test)
    assert np.array_equal(again, forest.predict(test))
    unlabelled = dataclasses.replace(few, labels=np.full(len(few), -1))
    with pytest.raises(DataError, match="must be labelled windows"):
        forest.fit(unlabelled)


def test_what_cannot_be_fine_tuned_is_refused(windows, checkpoint, tmp_path):
    with pytest.raises(
        UnknownNameError, match="method must be one of auto, full, head, discriminant, scratch, .*flora.*got 'lorra'"
    ):
        FinetuneConfig(method="lorra")
    with pytest.raises(ConfigError, match="label_smoothing"):
        FinetuneConfig(label_smoothing=1.0)
    with pytest.raises(ConfigError, match="method lora must start from a checkpoint, got none"):
        finetune(windows, dataclasses.replace(QUICK, method="lora"))
    one_class = windows.subset(windows.labels == 1)
    with pytest.raises(DataError, match="at least 2 classes"):
        finetune(one_class, QUICK, checkpoint=checkpoint)
    with pytest.raises(RunError, match=r"config.json|run of kind imu_saga.finetune"):
        load_run(checkpoint)
    RunFolder.create(tmp_path / "unfinished", FINETUNE_KIND, {})
    with pytest.raises(RunError, match="must have been written by the run"):
        load_run(tmp_path / "unfinished")


def test_evaluation_refuses_other_windows_and_known_people(windows, checkpoint, tmp_path):
    train, test = sides(windows)
    folder = RunFolder.create(tmp_path / "run", FINETUNE_KIND, {})
    name, model = finetune(train, dataclasses.replace(QUICK, method="head", steps=2), checkpoint=checkpoint)
    save_run(folder, name, model, test, {})
    run = load_run(tmp_path / "run")
    check_fits(test, run)
    wrong = [
        ({"rate_hz": 50.0}, "rate_hz: must be 20.0 as in training, got 50.0"),
        ({"classes": ("a", "b", "c")}, "classes: must be"),
        ({"x": test.x[:, :20], "valid": test.valid[:, :20]}, "samples: must be 40 as in training, got 20"),
        ({"channels": tuple(reversed(IMU_CHANNELS))}, "channels: must be"),
    ]
    for change, message in wrong:
        with pytest.raises(DataError, match=message):
            check_fits(dataclasses.replace(test, **change), run)
    with pytest.raises(DataError, match="1 in both: p0"):
        check_apart(test, ["p0", "p3"])
    nobody = dataclasses.replace(test, labels=np.full(len(test), -1))
    with pytest.raises(DataError, match="labelled windows"):
        score_model(run.model, nobody)
    assert json.loads((tmp_path / "run" / "model.json").read_text())["classes"] == list(windows.classes)
