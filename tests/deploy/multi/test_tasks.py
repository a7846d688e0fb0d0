"""Runs of one base are read as tasks, from runs or a pack, of vision or imu_saga; those of another base are refused."""

import numpy as np
import pytest
import torch
from PIL import Image

from deploy import BundleRunner
from deploy.commands import COMMANDS
from deploy.commands.multi import named_runs
from deploy.multi import load_tasks
from deploy.multi.inputs import arrays_of, same_forms, tensors_of
from deploy.runtime_images import data_config
from shared_peft.command import run_commands
from shared_peft.errors import AdapterError, CheckpointError, ConfigError, RunError
from shared_peft.training import RunFolder
from tests.deploy.architectures import fill
from tests.deploy.multi.conftest import RUNS, imu_runs
from vision.adapt import adapt
from vision.backbones.build import build_backbone
from vision.backbones.family import DataConfig
from vision.predict import predict
from vision.trained import save_examples, save_model
from vision.transforms import describe_preprocessing, fit_image


def arrays(tasks):
    return {name: arrays_of(each, {}) for name, each in same_forms({t.name: tensors_of(t) for t in tasks}).items()}


def test_a_pack_gives_the_tensors_of_its_runs(runs, pack, imu):
    mark, tasks = load_tasks(pack, {})
    assert mark == imu.mark
    expected, found = arrays(imu.tasks.values()), arrays(tasks)
    assert expected.keys() == found.keys() == RUNS.keys()
    for name, tensors in expected.items():
        assert tensors.keys() == found[name].keys()
        for key, values in tensors.items():
            np.testing.assert_array_equal(found[name][key], values, err_msg=f"{name}, {key}")


@pytest.mark.parametrize("base", ["run", "pack"])
def test_the_base_may_be_a_run_on_it_or_the_pack(runs, pack, imu, base):
    mark, tasks = load_tasks({"run": runs["user"], "pack": pack}[base], {"user": runs["user"]})
    assert mark == imu.mark
    assert [task.method for task in tasks] == ["flora"]


def test_runs_of_another_base_are_refused(runs, tmp_path):
    others = imu_runs(tmp_path, seed=7)
    with pytest.raises(CheckpointError, match=r"user: must stand on pre, whose frozen tensors have sha256 \w{12}, got"):
        load_tasks(runs["activity"].parent / "pre", {"activity": runs["activity"], "user": others["user"]})
    with pytest.raises(CheckpointError, match="activity: must stand on pre"):
        load_tasks(tmp_path / "pre", {"activity": runs["activity"]})


def test_what_is_no_run_and_names_that_cannot_be_are_refused(runs, tmp_path):
    with pytest.raises(ConfigError, match="must hold at least one task"):
        load_tasks(runs["user"], {})
    with pytest.raises(RunError, match="must be a run folder"):
        load_tasks(runs["user"], {"user": tmp_path})
    with pytest.raises(AdapterError, match="a task's name must be letters"):
        load_tasks(runs["user"], {"../user": runs["user"]})
    RunFolder.create(tmp_path / "vision", "vision.finetune", {})
    with pytest.raises(RunError, match="all runs must be of one package"):
        load_tasks(runs["user"], {"user": runs["user"], "image": tmp_path / "vision"})


@pytest.mark.parametrize("texts", [("user",), ("user=",), ("user=a", "user=b")])
def test_adapters_are_named_once(texts):
    with pytest.raises(ConfigError, match="--adapters: must be TASK=RUN, each task once"):
        named_runs(texts)


def vision_run(folder, classes, method, seed):
    """Write a run of a small network whose frozen weights are the same each time."""
    backbone = build_backbone("small_conv", classes)
    data = backbone.data
    trainee = adapt(backbone, method, {"r": 2})
    fill(trainee.model, seed=seed)
    run = RunFolder.create(folder, "vision.finetune", {})
    save_model(run, backbone, trainee, tuple(f"kind {i}" for i in range(classes)), method=method, seed=seed)
    save_examples(run, torch.randn(8, data.channels, data.size, data.size, generator=torch.Generator().manual_seed(1)))
    run.write("results.json", {"accuracy": 0.9})
    return folder


def test_vision_runs_become_a_bundle_that_reads_image_files_as_predict_does(tmp_path, capsys):
    paths = {"one": vision_run(tmp_path / "one", 3, "lora", 0), "two": vision_run(tmp_path / "two", 7, "flora", 1)}
    out = tmp_path / "bundle"
    given = [f"{name}={path}" for name, path in paths.items()]
    assert run_commands("deploy", COMMANDS, ["multi", str(paths["one"]), "--adapters", *given, "--out", str(out)]) == 0
    assert "2 adapters" in capsys.readouterr().out
    rng = np.random.default_rng(0)
    images = []
    for index, (height, width) in enumerate([(40, 57), (33, 20), (64, 64)]):
        images.append(tmp_path / f"{index}.png")
        Image.fromarray(rng.integers(0, 255, (height, width, 3), dtype=np.uint8)).save(images[-1])
    runner = BundleRunner(out, threads=1)
    for name, path in paths.items():
        runner.set_adapter(name)
        answers = runner.predict_images(images)
        assert len(runner.classes) == {"one": 3, "two": 7}[name]
        for image, answer in zip(images, answers, strict=True):
            expected = predict(path, [image]).predictions[0]
            assert answer.label == expected.label
            assert answer.probability == pytest.approx(expected.confidence, abs=1e-5)
    assert run_commands("deploy", COMMANDS, ["check", str(out)]) == 0
    said = capsys.readouterr().out
    assert all(f"task {name}: 8 rows" in said for name in paths)


@pytest.mark.parametrize("mode", ["center", "squash", "border"])
@pytest.mark.parametrize(("size", "fraction"), [(30, 1.0), (30, 0.875), (30, 1 / 3), (9, 0.64)])
def test_manifests_preprocessing_fits_images_as_the_configuration_did(mode, size, fraction):
    data = DataConfig(size, (0.4, 0.5, 0.6), (0.2, 0.3, 0.4), "bicubic", fraction, mode)
    image = torch.randint(0, 255, (3, 47, 71), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    found = data_config(describe_preprocessing(data))
    assert torch.equal(fit_image(image, found), fit_image(image, data))
