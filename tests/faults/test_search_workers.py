"""A search whose process is killed leaves no worker behind; one that gave up goes on once what killed it is gone."""

import os
import signal
import time
from pathlib import Path

import pytest

from imu_saga.pretrain import PretrainConfig
from imu_saga.search import SearchConfig, SearchResult, TrialOutcome, TrialTask, engine, search
from imu_saga.search.executors import ATTEMPTS, Here, LocalProcesses
from shared_peft.errors import RunError
from shared_peft.training import RunFolder
from tests.faults.killing import SERVER
from tests.imu_saga.planted import people
from tests.imu_saga.searched import smooth_trial

SECONDS, DEADLY = 20.0, 2


def note_and_wait(path: Path) -> None:
    path.write_text(str(os.getpid()))
    time.sleep(600)


def searching(path: Path) -> None:
    """Stand for a search with one worker, whose trial takes long."""
    with LocalProcesses(1) as executor:
        executor.submit(note_and_wait, path).result()


def alive(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"


def test_workers_end_with_a_search_that_is_killed(tmp_path: Path) -> None:
    told = tmp_path / "worker"
    process = SERVER.Process(target=searching, args=(told,))
    process.start()
    while not told.exists() or not told.read_text():
        time.sleep(0.02)
        assert process.is_alive()
    worker = int(told.read_text())
    assert alive(worker)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    until = time.monotonic() + SECONDS
    while alive(worker):
        time.sleep(0.02)
        assert time.monotonic() < until


class DeadlyProcesses(Here):
    """Runs trials here; one of them kills its process, as often as it is tried, while ``on``."""

    on = True

    def submit(self, fn, /, *args, **kwargs):
        if self.on and args[0].number == DEADLY:
            raise RunError(
                "search", "a trial must not kill its process", f"{ATTEMPTS} killed in a row", "Look for memory"
            )
        return super().submit(fn, *args, **kwargs)


def searched(path: Path, executor: Here, tried: list[int], monkeypatch) -> SearchResult:
    def trial(task: TrialTask) -> TrialOutcome:
        tried.append(task.seed)
        return smooth_trial(task)

    monkeypatch.setattr(engine, "run_trial", trial)
    config = SearchConfig(trials=5, shots=4, least_gain=0)
    folder = RunFolder.create(path, "imu_saga.search", {}, resume=True)
    return search(people(subjects=4, each=4), path, PretrainConfig(), config, folder, executor=executor)


def test_a_search_that_gave_up_goes_on_with_what_it_has_not_tried(tmp_path: Path, monkeypatch) -> None:
    executor, tried = DeadlyProcesses(), list[int]()
    with pytest.raises(RunError, match="must not kill its process"):
        searched(tmp_path / "cut", executor, tried, monkeypatch)
    executor.on = False
    cut = searched(tmp_path / "cut", executor, tried, monkeypatch)
    assert sorted(tried) == [0, 1, 2, 3, 4]
    whole = searched(tmp_path / "whole", Here(), [], monkeypatch)
    assert (cut.trials, cut.weights) == (whole.trials, whole.weights)
