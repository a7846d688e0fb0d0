"""`python -m deploy`: what it offers works, and a user's error ends with status 2 and no traceback."""

import subprocess
import sys

import pytest

from deploy.commands import COMMANDS
from shared_peft.command import run_commands
from shared_peft.training import RunFolder


@pytest.fixture
def toy_run(tmp_path, monkeypatch, bundle_of):
    """A run folder that loads as the adapted toy."""
    trained = bundle_of()[0]
    monkeypatch.setattr("deploy.commands.export.load_trained", lambda path: trained)
    RunFolder.create(tmp_path / "run", "vision.finetune", {})
    return tmp_path / "run"


def test_export_then_check(toy_run, tmp_path, capsys):
    bundle = tmp_path / "bundle"
    assert run_commands("deploy", COMMANDS, ["export", str(toy_run), "--out", str(bundle)]) == 0
    assert "5 classes" in capsys.readouterr().out
    assert run_commands("deploy", COMMANDS, ["check", str(bundle)]) == 0
    assert "top-1 agreement 100 %" in capsys.readouterr().out


def test_low_opset_ends_with_an_error_and_no_bundle(toy_run, tmp_path, capsys):
    arguments = ["export", str(toy_run), "--out", str(tmp_path / "bundle"), "--opset", "11"]
    assert run_commands("deploy", COMMANDS, arguments) == 2
    assert "ExportError: --opset: the exporter writes opset 18 here, got 11" in capsys.readouterr().err
    assert not (tmp_path / "bundle").exists()


def test_missing_run_is_a_users_error(tmp_path, capsys):
    assert run_commands("deploy", COMMANDS, ["export", str(tmp_path / "no"), "--out", str(tmp_path / "b")]) == 2
    assert "must be a run folder" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [[], ["export", "--help"], ["check", "--help"]])
def test_help_starts_in_a_fresh_process_without_the_deploy_extra(arguments):
    code = (
        "import runpy, sys; sys.modules.update(onnx=None, onnxscript=None, onnxruntime=None);"
        f"sys.argv = ['deploy', *{arguments!r}]; runpy.run_module('deploy', run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "python -m deploy" in done.stdout
