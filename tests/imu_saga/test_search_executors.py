"""Where trials run: a process or a Dask worker that dies costs its trial's time and nothing else."""

import os
import sys

import pytest

from imu_saga.pretrain import PretrainConfig
from imu_saga.search import SearchConfig, SearchResult, engine, open_executor, search
from imu_saga.search.executors import ATTEMPTS, Here, LocalProcesses
from shared_peft.errors import ConfigError, MissingPackageError, RunError
from shared_peft.training import RunFolder
from tests.imu_saga import searched
from tests.imu_saga.planted import people

WORKERS = 2
NUMBERS = [f"trial_{number:03d}" for number in range(9)]


def run_search(path, executor, monkeypatch, trial) -> SearchResult:
    monkeypatch.setattr(engine, "run_trial", trial)
    config = SearchConfig(trials=9, shots=4, least_gain=0)
    run = RunFolder.create(path, "imu_saga.search", {})
    windows = people(subjects=4, each=4)
    return search(windows, path, PretrainConfig(), config, run, executor=executor, workers=WORKERS)


@pytest.mark.parametrize("scheduler", ["", "local"], ids=["processes", "dask"])
def test_a_worker_that_dies_costs_its_trial_and_nothing_else(scheduler, monkeypatch, tmp_path):
    undisturbed = run_search(tmp_path / "calm", Here(), monkeypatch, searched.smooth_trial)
    with open_executor(WORKERS, scheduler) as (executor, workers):
        assert workers == WORKERS
        disturbed = run_search(tmp_path / "fatal", executor, monkeypatch, searched.fatal_once)
    assert searched.calls_in(tmp_path / "fatal") == sorted([*NUMBERS, searched.FATAL])
    assert disturbed.trials == undisturbed.trials
    assert disturbed.weights == undisturbed.weights


def test_a_trial_that_kills_every_process_is_given_up_in_words():
    must = f"a trial must not kill its process, got {ATTEMPTS} killed in a row"
    with LocalProcesses(1) as executor, pytest.raises(RunError, match=must):
        executor.submit(os._exit, 1).result()


def test_impossible_executors_are_refused(monkeypatch):
    with pytest.raises(ConfigError, match="--workers: must be at least 1, got 0"), open_executor(0):
        pass
    wrong = "--scheduler: must be local or an address, got 'nowhere'"
    with pytest.raises(ConfigError, match=wrong), open_executor(1, "nowhere"):
        pass
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(MissingPackageError, match=r'pip install "saga-peft\[cluster\]"'), open_executor(1, "local"):
        pass
