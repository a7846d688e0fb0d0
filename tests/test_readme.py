"""The README keeps its promises: its code runs, its commands exist, its tables are the registries'."""

import re
from pathlib import Path

import pytest

from tests.registry_tables import README, with_tables

TEXT = README.read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", TEXT, re.DOTALL)


def test_the_tables_are_those_of_the_registries() -> None:
    assert with_tables(TEXT) == TEXT, "run: python -m tests.registry_tables"


def test_every_python_example_is_short_and_the_first_one_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    examples = [code for language, code in BLOCKS if language == "python"]
    assert all(len(code.strip().splitlines()) <= 10 for code in examples)
    monkeypatch.chdir(tmp_path)
    exec(compile(examples[0], "README.md", "exec"), {})  # noqa: S102
    assert capsys.readouterr().out.startswith("trainable params: ")
    assert (tmp_path / "runs" / "readme" / "flora" / "adapter_model.safetensors").is_file()
