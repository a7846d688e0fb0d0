"""Every command that writes, on a full disk, in a closed folder, and where another run of it is under way."""

import contextlib
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import shared_peft.atomic as atomic_module
import shared_peft.training.run as run_module
from deploy.web import site
from shared_peft.command import EXIT_INTERRUPTED, EXIT_USER_ERROR
from shared_peft.lock import held
from tests.faults.cases import CASES, WRITE_NOTHING, Case, commands_of, make_bundle
from tests.faults.conftest import largest_file
from tests.faults.test_writing import NOWHERE

HELD = [name for name, case in CASES.items() if case.writes != "files"]


@pytest.fixture(autouse=True)
def _no_page_runtime(monkeypatch) -> None:
    """Let `web` do without the files it would fetch."""
    monkeypatch.setattr(site, "runtime_files", lambda folder: {})


@pytest.fixture(scope="module")
def stocked(made: Path) -> Path:
    """Runs, files and a bundle for commands to start from."""
    return make_bundle(made)


def refusal(case: Case, stocked: Path, out: Path, capsys) -> str:
    """Return the one line a command ends with."""
    capsys.readouterr()
    assert case.call(stocked, out) == EXIT_USER_ERROR
    shown = capsys.readouterr().err
    assert "Traceback" not in shown
    return shown.strip().splitlines()[-1]


def test_every_command_is_among_the_cases_or_writes_nothing() -> None:
    names = {f"{program} {each.name}" for program in ("imu_saga", "vision", "deploy") for each in commands_of(program)}
    assert names == CASES.keys() | WRITE_NOTHING


@pytest.mark.parametrize("name", CASES)
def test_a_full_disk_is_told_in_one_line_and_leaves_nothing(name: str, stocked: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "deep" / "out"
    with largest_file(0):
        line = refusal(CASES[name], stocked, out, capsys)
    said = rf"WriteError: {out}\S*: must be writable, got File too large\. Raise the largest file allowed \(ulimit -f\)"
    if name == "deploy bench":  # it fails before, on its files for a moment
        said = rf"OSError: .*File too large\. Raise the largest file allowed .* lie in {tempfile.gettempdir()}; TMPDIR"
    assert re.match(said, line)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["imu_saga pretrain", "vision finetune"])
def test_a_disk_that_fills_up_in_training_is_told_in_a_line_of_its_own(
    name: str, stocked: Path, tmp_path: Path, capsys
) -> None:
    with largest_file(20_000):
        line = refusal(CASES[name], stocked, tmp_path / "out", capsys)
    assert re.match(rf"WriteError: {tmp_path / 'out'}/\S+: must be writable, got File too large", line)
    assert CASES[name].call(stocked, tmp_path / "out", "--resume") == 0


@pytest.mark.parametrize("name", CASES)
def test_a_folder_closed_to_writing_is_told_in_one_line(name: str, stocked: Path, capsys) -> None:
    line = refusal(CASES[name], stocked, NOWHERE / "out", capsys)
    assert re.match(rf"WriteError: {NOWHERE}\S*: must be writable, got .*\. Allow writing there, or choose", line)


@pytest.mark.parametrize("name", HELD)
def test_a_second_run_into_the_folder_is_refused_and_the_first_goes_on(
    name: str, stocked: Path, tmp_path: Path, capsys, monkeypatch
) -> None:
    case, out, refused, trying = CASES[name], tmp_path / "out", list[str](), list[bool]()

    @contextlib.contextmanager
    def held_and_tried(file: Path, where: Path) -> Iterator[None]:
        """Hold as usual; whenever the first run holds its folder, start a second."""
        with held(file, where):
            if where == out and not trying:
                trying.append(True)
                refused.append(refusal(case, stocked, out, capsys))
                trying.clear()
                if case.writes == "whole":  # nothing is there before the end, which others test
                    raise KeyboardInterrupt
            yield

    for module in (atomic_module, run_module):
        monkeypatch.setattr(module, "held", held_and_tried)
    assert case.call(stocked, out) == (EXIT_INTERRUPTED if case.writes == "whole" else 0)
    assert refused
    for line in refused:
        assert re.match(
            rf"RunError: {out}: must be used by one run at a time, got another running process\. Wait", line
        )
    left = [path.name for path in tmp_path.rglob("*.part")]
    assert not left
    assert out.exists() == (case.writes == "run")
