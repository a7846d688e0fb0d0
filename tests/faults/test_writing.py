"""Files appear whole or not at all, whoever writes them and whatever the disk does; what cannot be is told in words."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from shared_peft.atomic import appearing_folder, is_leftover, replacing, write_text
from shared_peft.errors import CheckpointError, RunError, WriteError
from shared_peft.lock import held
from shared_peft.training import RunFolder
from shared_peft.training.checkpoint import save
from shared_peft.weights import write_tensors
from tests.faults.conftest import largest_file

TENSOR = torch.arange(20_000.0)
NOWHERE = Path("/sys/saga-peft")  # a folder nobody can write to, whatever rights they have


def write_picture(path: Path) -> None:
    from matplotlib.figure import Figure

    from shared_peft.picture import write_picture as write

    figure = Figure()
    figure.subplots().plot([0, 1])
    write(path, figure)


def write_adapter(path: Path) -> None:
    from deploy.multi.adapter_file import write_adapter as write

    write(path, {"x": TENSOR.numpy()}, "ab" * 32)


def write_arrays(path: Path) -> None:
    with replacing(path) as temporary, temporary.open("wb") as stream:
        np.savez(stream, x=TENSOR.numpy())


WRITERS: dict[str, Callable[[Path], object]] = {
    "text": lambda path: write_text(path, "a" * 40_000),
    "weights": lambda path: write_tensors(path, {"x": TENSOR}),
    "checkpoint": lambda path: save(path, 1, 0.5, torch.nn.Linear(100, 100), {}),
    "adapter": write_adapter,
    "arrays": write_arrays,
    "picture": write_picture,
}


@pytest.mark.parametrize("size", [0, 5000])
@pytest.mark.parametrize("name", WRITERS)
def test_a_full_disk_is_told_and_the_good_file_before_stays(name: str, size: int, tmp_path: Path) -> None:
    path = tmp_path / "kept.png"
    path.write_text("good")
    new = tmp_path / "a" / "b" / "new.png"
    for target in (path, new):
        with largest_file(size), pytest.raises(WriteError, match=r"File too large\. Raise the largest file") as told:
            WRITERS[name](target)
        assert told.value.where == target
    assert [file.read_text() for file in tmp_path.iterdir()] == ["good"]


@pytest.mark.parametrize("name", WRITERS)
def test_a_folder_closed_to_writing_is_told(name: str) -> None:
    must = rf"{NOWHERE}.*: must be writable, got .*\. Allow writing there, or choose a folder that may be written to"
    with pytest.raises(WriteError, match=must):
        WRITERS[name](NOWHERE / "file.png")


def test_a_run_folder_that_cannot_be_begun_leaves_nothing(tmp_path: Path) -> None:
    with largest_file(0), pytest.raises(WriteError, match=r"config\.json: must be writable"):
        RunFolder.create(tmp_path / "a" / "run", "test", {})
    assert not list(tmp_path.iterdir())
    with pytest.raises(WriteError, match=str(NOWHERE)):
        RunFolder.create(NOWHERE / "run", "test", {})


def test_a_log_line_that_does_not_fit_is_told_and_what_was_logged_stays(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "run", "test", {})
    folder.log(step=1)
    size = (tmp_path / "run" / "metrics.jsonl").stat().st_size
    with largest_file(size + 4), pytest.raises(WriteError, match=r"metrics\.jsonl: must be writable"):
        folder.log(step=2)
    assert folder.read_log() == [{"step": 1}]
    folder.forget_after(1)
    folder.log(step=2)
    assert folder.read_log() == [{"step": 1}, {"step": 2}]


def fill_bundle(path: Path, number: int) -> None:
    with appearing_folder(path) as folder, replacing(folder / "model.onnx") as temporary:
        temporary.write_text("half")
        raise OSError(number, os.strerror(number))


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_folder_that_does_not_fit_leaves_nothing(number: int, tmp_path: Path) -> None:
    with pytest.raises(WriteError, match=rf"bundle: .*{os.strerror(number)}\. Make room there"):
        fill_bundle(tmp_path / "deep" / "bundle", number)
    assert not list(tmp_path.iterdir())


def test_errors_that_are_not_about_the_file_pass_as_they_are(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), replacing(tmp_path / "new.csv"):
        (tmp_path / "missing.csv").read_text()
    with pytest.raises(CheckpointError), appearing_folder(tmp_path / "new"):
        raise CheckpointError("x", "must fit", "none", "Try another")
    with pytest.raises(RuntimeError, match="shapes"), replacing(tmp_path / "new.csv"):
        raise RuntimeError("shapes do not fit")
    assert not list(tmp_path.iterdir())


def test_two_processes_do_not_make_one_folder(tmp_path: Path) -> None:
    with appearing_folder(tmp_path / "new") as first:
        (first / "file").write_text("first")
        second = appearing_folder(tmp_path / "new")
        with pytest.raises(RunError, match="new: must be used by one run at a time, got another running process"):
            second.__enter__()
    assert [path.name for path in tmp_path.iterdir()] == ["new"]
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["file"]


def test_what_a_kill_left_of_a_folder_is_removed_by_the_next(tmp_path: Path) -> None:
    (tmp_path / ".new.part" / "deep").mkdir(parents=True)
    (tmp_path / ".new.part" / "deep" / "half").touch()
    (tmp_path / ".new.lock").touch()
    with appearing_folder(tmp_path / "new") as folder:
        assert not list(folder.iterdir())
    assert [path.name for path in tmp_path.iterdir()] == ["new"]


def test_a_lock_that_was_taken_away_while_it_was_asked_for_is_refused(tmp_path: Path, monkeypatch) -> None:
    import fcntl

    def late(handle, how) -> None:
        (tmp_path / ".lock").unlink()

    monkeypatch.setattr(fcntl, "flock", late)
    with pytest.raises(RunError, match="must be used by one run at a time"), held(tmp_path / ".lock", tmp_path):
        pass


def test_a_run_taken_up_again_removes_what_a_kill_left(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "run", "test", {})
    (folder.path / "adapter").mkdir()
    for name in (".model.safetensors.abc.part", "adapter/.adapter_config.json.xyz.part", "adapter/whole.json"):
        (folder.path / name).touch()
        assert is_leftover(folder.path / name) == (not name.endswith("whole.json"))
    with RunFolder.create(tmp_path / "run", "test", {}, resume=True).locked():
        names = sorted(path.name for path in folder.path.rglob("*"))
    assert names == [".lock", "adapter", "config.json", "whole.json"]
