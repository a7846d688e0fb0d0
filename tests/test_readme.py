"""The README keeps its promises: its code and its commands run, its tables are the registries'."""

import importlib
import re
import shlex
from pathlib import Path

import numpy as np
import pytest

from imu_saga.synthetic import Population, generate
from shared_peft.command import run_commands
from tests.registry_tables import README, with_tables

TEXT = README.read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", TEXT, re.DOTALL)


def test_the_tables_are_those_of_the_registries() -> None:
    assert with_tables(TEXT) == TEXT, "run: python -m tests.registry_tables"


def test_every_python_example_is_short_and_the_first_one_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    examples = [code for language, code in BLOCKS if language == "python"]
    assert all(len([line for line in code.splitlines() if line]) <= 10 for code in examples)
    monkeypatch.chdir(tmp_path)
    exec(compile(examples[0], "README.md", "exec"), {})  # noqa: S102
    assert capsys.readouterr().out.startswith("trainable params: ")
    assert (tmp_path / "runs" / "readme" / "flora" / "adapter_model.safetensors").is_file()


SHORTER = {
    "pretrain": ["--steps", "4"],
    "finetune": ["--steps", "4"],
    "benchmark": ["--methods", "majority", "logistic_regression", "--shots", "1"],
}


def run_line(line: str) -> int:
    """Run a README command in this process, with a few steps only."""
    python, dash, package, command, *arguments = shlex.split(line)
    assert (python, dash) == ("python", "-m")
    commands = importlib.import_module(f"{package}.commands").COMMANDS
    return run_commands(package, commands, [command, *arguments, *SHORTER.get(command, [])])


def write_csv(path: Path) -> None:
    """Write a minute of a person's movement as a user would have it."""
    session = generate(Population(subjects=1, sessions=1, bout_s=10.0, gaps_per_minute=0))[0]
    table = np.column_stack([session.times_s, session.signal])
    np.savetxt(path, table, delimiter=",", header="time,ax,ay,az,gx,gy,gz", comments="")


def test_the_motion_commands_run_in_the_order_shown_and_the_bundle_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    blocks = [code for language, code in BLOCKS if not language and ("saga audit" in code or "saga tasks" in code)]
    monkeypatch.chdir(tmp_path)
    write_csv(tmp_path / "FILE.csv")
    for line in "".join(blocks).strip().splitlines():
        assert run_line(line) == 0, capsys.readouterr().err
    header = (tmp_path / "all.csv").read_text().splitlines()[0]
    assert header == "session,start_s,end_s,note,activity,activity_confidence,placement,placement_confidence"
    assert (tmp_path / "predictions.csv").read_text().startswith("session,start_s,end_s,label,confidence")
    capsys.readouterr()
    runner = next(code for language, code in BLOCKS if language == "python" and "BundleRunner" in code)
    exec(compile(runner, "README.md", "exec"), {})  # noqa: S102
    assert "top1_agreement=1.0" in capsys.readouterr().out


def test_the_commands_on_own_recordings_run_in_the_order_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    block = next(code for language, code in BLOCKS if not language and "imu_saga inspect" in code)
    monkeypatch.chdir(tmp_path)
    write_csv(tmp_path / "FILE.csv")
    for line in block.strip().splitlines():
        assert run_line(line) == 0, capsys.readouterr().err
    for made in ("inspection/inspection.png", "store/store.json", "saga-store/model.json", "benchmark/table.md"):
        assert (tmp_path / "runs" / made).is_file()
