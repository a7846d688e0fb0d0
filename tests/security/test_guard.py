"""The guard of these tests sees what it is there to see."""

from pathlib import Path

import numpy as np
import pytest

from shared_peft.errors import DataError
from tests.security.guard import CANARY, LARGEST, outcome


def refuse() -> None:
    raise DataError("file", "must be sound", "damage", "Copy it again")


def test_reading_and_refusing_are_told_apart(tmp_path: Path) -> None:
    assert outcome(lambda: None, tmp_path / "x") == "loaded"
    assert outcome(refuse, tmp_path / "x") == "refused"


def test_memory_is_counted_while_it_is_held(tmp_path: Path) -> None:
    outcome(lambda: np.ones(LARGEST // 2, np.uint8).sum(), tmp_path / "x")
    with pytest.raises(AssertionError):
        outcome(lambda: np.ones(LARGEST + (64 << 20), np.uint8).sum(), tmp_path / "x")
    with pytest.raises(MemoryError):
        outcome(lambda: np.ones(8 * LARGEST, np.uint8), tmp_path / "x")


@pytest.mark.parametrize("name", [CANARY, "in/other"])
def test_a_file_made_anywhere_around_is_seen(name: str, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    with pytest.raises(AssertionError):
        outcome((tmp_path / name).touch, tmp_path / "in")
    (tmp_path / "in" / "kept").write_text("before")
    with pytest.raises(AssertionError):
        outcome(lambda: (tmp_path / "in" / "kept").write_text("after"), tmp_path / "in")


def test_other_errors_pass(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        outcome(lambda: 1 / 0, tmp_path / "x")
