"""A run folder is read by the package that made it."""

import sys
import types

import pytest

from deploy.runs import LOADERS, load_trained
from shared_peft.errors import RunError
from shared_peft.training import RunFolder


def test_run_is_loaded_by_its_own_package(tmp_path, monkeypatch):
    module = types.ModuleType("toy_trained")
    module.load_run = lambda path: ("loaded", path)
    monkeypatch.setitem(sys.modules, "toy_trained", module)
    monkeypatch.setitem(LOADERS, "toy", "toy_trained")
    RunFolder.create(tmp_path / "run", "toy.finetune", {})
    assert load_trained(tmp_path / "run") == ("loaded", tmp_path / "run")


def test_run_of_another_package_is_refused(tmp_path):
    RunFolder.create(tmp_path / "run", "visionary.finetune", {})
    with pytest.raises(RunError, match="kind must begin with imu_saga or vision, got 'visionary.finetune'"):
        load_trained(tmp_path / "run")


def test_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(RunError, match="must be a run folder with config.json"):
        load_trained(tmp_path)
