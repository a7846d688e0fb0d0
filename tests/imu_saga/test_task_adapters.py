"""Task adapters: one encoder answers as every run's own model does, is stored once, refuses runs of another base."""

import csv
import dataclasses
import gc
import json
import shutil

import numpy as np
import pytest
import torch

from imu_saga.commands.tasks import COMMAND
from imu_saga.encoder import load_encoder
from imu_saga.finetune import FinetuneConfig, finetune, predict_probabilities
from imu_saga.heads import Statistics
from imu_saga.input_spec import InputSpec
from imu_saga.predict import predict_csv
from imu_saga.pretrain import PretrainConfig, pretrain
from imu_saga.signal.features import feature_names
from imu_saga.task_adapters import TaskAdapters
from imu_saga.tasks import TASKS
from imu_saga.trained import FINETUNE_KIND, load_run, save_run
from shared_peft import METHODS, atomic
from shared_peft.command import run_command
from shared_peft.errors import AdapterError, CheckpointError, ConfigError, DataError, RunError
from shared_peft.training import RunFolder
from shared_peft.weights import read_tensors, write_tensors
from tests.imu_saga.planted import people

WINDOWS = people(subjects=4, each=4)
WINDOWS = dataclasses.replace(WINDOWS, placements=np.where(np.arange(len(WINDOWS)) % 2 == 0, "waist", "wrist"))
X = torch.from_numpy(WINDOWS.x)
ADAPTED = METHODS.names()


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A pre-training run "pre"; runs on it: one a method, the user and placement tasks, and a full one."""
    path = tmp_path_factory.mktemp("tasks")
    options = {"width": 16, "depth": 1, "heads": 2}
    folder = RunFolder.create(path / "pre", "imu_saga.pretrain", {})
    pretrain(WINDOWS, PretrainConfig(steps=4, batch_size=16, options=options), folder, progress=None)
    made = [(method, method, "activity") for method in (*ADAPTED, "full")]
    for name, method, task in [*made, ("user", "lora", "user"), ("placement", "head", "placement")]:
        labelled = TASKS.get(task).relabel(WINDOWS)
        config = FinetuneConfig(
            method=method, steps=6, batch_size=12, r=2, learning_rate=2e-2, statistics=task == "user"
        )
        run = RunFolder.create(path / name, FINETUNE_KIND, {"method": method})
        encoder, model = finetune(labelled, config, checkpoint=path / "pre")
        save_run(run, encoder, model, labelled, {"details": {"task": task}})
    return path


def loaded(root, *names: str) -> TaskAdapters:
    return TaskAdapters.load({name: root / name for name in names})


def own_logits(root, name: str) -> torch.Tensor:
    with torch.no_grad():
        return load_run(root / name).model(X)


def test_every_method_beside_all_others_answers_as_its_own_run_does(root):
    tasks = loaded(root, *ADAPTED, "user", "placement")
    assert [tasks.method(name) for name in tasks.names] == [*ADAPTED, "lora", "head"]
    expected = {name: own_logits(root, name) for name in tasks.names}
    assert expected["user"].shape[1] == 4
    assert expected["placement"].shape[1] == 2
    base = {name: logits for name, logits in expected.items() if name in ADAPTED}
    assert min((one - base["lora"]).abs().max() for name, one in base.items() if name != "lora") > 1e-3
    for names in (tasks.names, tasks.names[::-1]):
        for name in names:
            torch.testing.assert_close(tasks.logits(X, name), expected[name], rtol=0, atol=1e-6)


def test_all_tasks_of_the_same_windows_cost_one_pass_of_the_encoder_each(root):
    tasks = loaded(root, "lora", "user", "placement")
    rows: list[int] = []
    tasks.encoder.register_forward_hook(lambda _module, given, _result: rows.append(len(given[0])))
    found = tasks.predict_all(WINDOWS)
    assert rows == [len(WINDOWS)] * 3
    for name in tasks.names:
        own = predict_probabilities(load_run(root / name).model, WINDOWS.x)
        torch.testing.assert_close(found[name], own, rtol=0, atol=1e-6)
        assert torch.equal(tasks.predict(WINDOWS, name), found[name])


def test_the_encoder_is_there_once_however_many_tasks(root):
    tasks = loaded(root, *ADAPTED, "user", "placement")
    stored = read_tensors(root / "pre" / "model.safetensors")
    base = sum(tensor.numel() for name, tensor in stored.items() if name.startswith("encoder."))
    counted, of_task = tasks.sizes()
    assert counted == base
    rank_two = sum(2 * sum(layer.shape[0:1]) + 2 * layer[0].numel() for layer in weights_of(stored))
    every = 2 * 16 + len(feature_names(WINDOWS.channels, smooth=True))  # this task's head sees the statistics, too
    readout = 2 * 32  # mean and deviation of the 2 * 16 features
    assert of_task["user"] == rank_two + 2 * every + every * 4 + 4
    assert of_task["placement"] == readout + 32 * 2 + 2
    assert not any(p.requires_grad for c in tasks.classifiers.values() for p in c.parameters())
    parameters = {id(p): p.numel() for c in tasks.classifiers.values() for p in c.parameters()}
    buffers = {id(b): b.numel() for c in tasks.classifiers.values() for b in c.buffers()}
    fixed = sum(b.numel() for n, b in tasks.encoder.named_buffers() if n in ("placement", "columns", "positions"))
    fixed += sum(b.numel() for b in Statistics(tasks.encoder).buffers())  # tables, the same for all tasks
    assert sum(parameters.values()) + sum(buffers.values()) - fixed == counted + sum(of_task.values())


def weights_of(stored: dict[str, torch.Tensor]) -> list[torch.Tensor]:
    return [t for name, t in stored.items() if name.startswith("encoder.") and name.endswith("weight") and t.ndim > 1]


def test_switching_a_thousand_times_keeps_no_tensor(root):
    tasks = loaded(root, "lora", "flora", "placement")

    def held() -> tuple[int, int]:
        gc.collect()
        tensors = [each for each in gc.get_objects() if issubclass(type(each), torch.Tensor)]
        dense = [tensor for tensor in tensors if tensor.layout == torch.strided]  # others have no storage to ask for
        return len(tensors), sum(tensor.untyped_storage().nbytes() for tensor in dense)

    def switch(times: int) -> None:
        for count in range(times):
            tasks.logits(X[:1], tasks.names[count % 3])

    switch(9)
    before = held()
    layers = {id(module) for module in tasks.encoder.modules()}
    switch(999)
    assert held() == before
    assert {id(module) for module in tasks.encoder.modules()} == layers, "switching builds nothing"


def test_a_packed_folder_holds_the_encoder_once_and_comes_back_the_same(root, tmp_path):
    tasks = loaded(root, "lora_tsd", "flora", "user", "placement")
    expected = {name: tasks.logits(X, name) for name in tasks.names}
    tasks.save(tmp_path / "pack")
    back = TaskAdapters.read(tmp_path / "pack")
    assert back.names == tasks.names
    assert back.classes == tasks.classes
    assert back.sizes() == tasks.sizes()
    for name in tasks.names:
        assert torch.equal(back.logits(X, name), expected[name])
    files = sorted(path.relative_to(tmp_path / "pack").as_posix() for path in tmp_path.rglob("*") if path.is_file())
    adapter = ("adapter_config.json", "adapter_model.safetensors", "readout.safetensors")
    in_tasks = [f"{name}/{file}" for name in ("flora", "lora_tsd", "user") for file in adapter]
    assert files == sorted(
        [*in_tasks, "placement/readout.safetensors", "model.json", "model.safetensors", "tasks.json"]
    )
    with pytest.raises(RunError, match="must be a new or empty folder"):
        tasks.save(tmp_path / "pack")
    _, encoder, _ = load_encoder(tmp_path / "pack", "saga", {}, InputSpec.of(WINDOWS))
    stored = read_tensors(root / "pre" / "model.safetensors")
    assert all(torch.equal(tensor, stored[f"encoder.{name}"]) for name, tensor in encoder.state_dict().items())


def test_a_pack_is_written_whole_or_not_at_all(root, tmp_path, monkeypatch):
    tasks = loaded(root, "lora", "user")

    written = json.dumps

    def full_disk(value, **options):
        if "base_sha256" in value:  # the last file of all
            raise OSError("no space left")
        return written(value, **options)

    monkeypatch.setattr(atomic.json, "dumps", full_disk)
    with pytest.raises(OSError, match="no space"):
        tasks.save(tmp_path / "pack")
    assert list(tmp_path.iterdir()) == []


def test_runs_on_one_checkpoint_tell_the_same_base(root):
    marks = {name: load_run(root / name).details["base_sha256"] for name in ("lora", "flora", "user", "placement")}
    assert set(marks.values()) == {loaded(root, "lora").base_sha256}
    assert load_run(root / "full").details["base_sha256"] not in marks.values()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rate_hz": 40.0}, "must have the rate of .*lora, 20 Hz, got 40 Hz"),
        ({"samples": 80}, "must have the window of .*lora, 40 samples, got 80 samples"),
        ({"channels": ["acc_x", "acc_y", "acc_z"]}, "must have the channels of .*lora, acc_x, .*gyro_z, got acc_x"),
        ({"gravity": "removed"}, "must have the gravity of .*lora, kept, got removed"),
    ],
)
def test_runs_of_other_windows_are_refused_by_what_differs(change, message, root, tmp_path):
    other = shutil.copytree(root / "user", tmp_path / "other")
    card = json.loads((other / "model.json").read_text())
    card["input"].update(change)
    (other / "model.json").write_text(json.dumps(card))
    with pytest.raises(CheckpointError, match=f"other: {message}"):
        TaskAdapters.load({"activity": root / "lora", "user": other})


def test_what_does_not_belong_together_is_refused(root, tmp_path):
    with pytest.raises(CheckpointError, match="full: must have the frozen encoder of .*lora, sha256 .*got sha256"):
        loaded(root, "lora", "full")
    with pytest.raises(ConfigError, match="at least one task"):
        TaskAdapters.load({})
    with pytest.raises(AdapterError, match="name must be letters"):
        TaskAdapters.load({"../user": root / "user"})
    with pytest.raises(RunError, match="kind imu_saga.finetune"):
        TaskAdapters.load({"activity": root / "pre"})
    tasks = loaded(root, "lora", "user")
    with pytest.raises(AdapterError, match="must be one of lora, user, got 'gait'"):
        tasks.predict(WINDOWS, "gait")
    with pytest.raises(DataError, match="windows must be .*rate_hz=20.0.*got .*rate_hz=50.0"):
        tasks.predict_all(dataclasses.replace(WINDOWS, rate_hz=50.0))
    with pytest.raises(RunError, match=r"must hold tasks.json"):
        TaskAdapters.read(root / "lora")


def test_damaged_packs_are_refused(root, tmp_path):
    pack = tmp_path / "pack"
    loaded(root, "lora", "user").save(pack)

    def broken(name: str):
        return shutil.copytree(pack, tmp_path / name)

    other = broken("base")
    tensors = read_tensors(other / "model.safetensors")
    write_tensors(other / "model.safetensors", {name: 2 * tensor for name, tensor in tensors.items()})
    with pytest.raises(CheckpointError, match="that the tasks were trained on, got"):
        TaskAdapters.read(other)
    other = broken("adapter")
    (other / "user" / "adapter_model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"must hold adapter_model.safetensors"):
        TaskAdapters.read(other)
    other = broken("readout")
    shutil.copy(other / "lora" / "readout.safetensors", other / "user" / "readout.safetensors")
    with pytest.raises(CheckpointError, match=r"task user: .*head.weight \(3, 32\) instead of \(4, 32\)"):
        TaskAdapters.read(other)
    for change, error, message in (
        ({"schema_version": 2}, RunError, "schema_version must be 1"),
        ({"tasks": {"../x": {"classes": ["a"], "method": "head"}}}, AdapterError, "name must be letters"),
        ({"tasks": {}}, ConfigError, "at least one task"),
    ):
        listed = json.loads((pack / "tasks.json").read_text())
        (other / "tasks.json").write_text(json.dumps({**listed, **change}))
        with pytest.raises(error, match=message):
            TaskAdapters.read(other)


def call(*arguments: object) -> int:
    return run_command("imu_saga tasks", COMMAND, [str(argument) for argument in arguments])


def test_the_command_packs_and_labels_a_recording_as_every_run_alone_does(root, tmp_path, capsys):
    assert call(root / "lora", root / "user", f"worn={root / 'placement'}", "--out", tmp_path / "pack") == 0
    shown = capsys.readouterr().out
    assert f"frozen, sha256 {load_run(root / 'lora').details['base_sha256'][:12]}" in shown
    assert "lora, 4 classes" in shown
    times = np.arange(700) / 50.0
    signal = np.stack([np.sin(times * 5), times * 0, 9.8 + np.cos(times * 9), *(np.sin(times * k) for k in (1, 2, 3))])
    kept = (times < 6) | (times >= 8)
    with (tmp_path / "me.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["time", "acc_x", "acc_y", "acc_z", "gyro_x", "gyro_y", "gyro_z"])
        writer.writerows(np.column_stack([times, signal.T])[kept].round(6).tolist())
    assert call(tmp_path / "pack", "--file", tmp_path / "me.csv", "--out", tmp_path / "all.csv") == 0
    columns = {"time": "time", "acc": ["acc_x", "acc_y", "acc_z"], "gyro": ["gyro_x", "gyro_y", "gyro_z"]}
    rows = list(csv.DictReader((tmp_path / "all.csv").read_text().splitlines()))
    for name, run in (("activity", "lora"), ("user", "user"), ("worn", "placement")):
        own = predict_csv(load_run(root / run), tmp_path / "me.csv", options=columns)
        assert [row[name] for row in rows] == [each.label for each in own]
        assert [row[f"{name}_confidence"] for row in rows] == [f"{each.confidence:.4f}" for each in own]
        assert [(row["start_s"], row["note"]) for row in rows] == [(f"{each.start_s:.3f}", each.note) for each in own]
    assert any(row["activity"] for row in rows)
    assert any(not row["activity"] for row in rows)


def test_the_command_tells_what_is_wrong(root, tmp_path, capsys):
    for arguments, message in (
        ([root / "lora", root / "flora"], "each must have its own name, activity is"),
        ([root / "lora", root / "none"], "must be a run folder with config.json"),
        ([root / "lora", root / "pre"], "must be a run of kind imu_saga.finetune"),
        ([root / "lora", f"other={root / 'full'}"], "must have the frozen encoder of"),
        ([root / "lora", "--file", tmp_path / "none.csv"], "none.csv"),
    ):
        assert call(*arguments) == 2
        assert message in capsys.readouterr().err
