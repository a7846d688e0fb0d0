"""Registries, configurations, files and the command line that every package stands on."""

import dataclasses
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest

from shared_peft import METHODS, LoraConfig, make_config
from shared_peft.atomic import replacing, sha256_of, write_json, write_text
from shared_peft.command import Command, run_commands
from shared_peft.config import from_json, to_json
from shared_peft.errors import ConfigError, RankError, UnknownNameError
from shared_peft.registry import Registry


@dataclass(frozen=True)
class Inner:
    """A nested configuration."""

    rate: float = 1.0


@dataclass(frozen=True)
class Options:
    """A configuration with every kind of field."""

    path: Path
    size: tuple[int, int]
    kind: Literal["a", "b"] = "a"
    ranks: int | tuple[int, ...] | None = None
    names: list[str] = field(default_factory=list)
    inner: Inner = field(default_factory=Inner)
    table: dict[str, float] = field(default_factory=dict)
    fast: bool = False


WHOLE = Options(Path("x/y"), (3, 4), "b", (1, 2), ["n"], Inner(2.5), {"k": 1.0}, fast=True)


@pytest.mark.parametrize("config", [WHOLE, Options(Path("p"), (1, 1)), dataclasses.replace(WHOLE, ranks=5)])
def test_configurations_survive_json(config: Options) -> None:
    assert from_json(Options, to_json(config)) == config


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"speed": 1}, r"Options: key must be one of fast, inner, .*, got 'speed'"),
        ({"size": [1]}, r"Options\.size: must be a list of 2"),
        ({"size": [1, "2"]}, r"Options\.size\[1\]: must be int, got '2' \(str\)"),
        ({"size": [1, 2.0]}, r"Options\.size\[1\]: must be int"),
        ({"kind": "c"}, r"Options\.kind: must be one of 'a', 'b', got 'c'"),
        ({"fast": 1}, r"Options\.fast: must be bool, got 1 \(int\)"),
        ({"inner": {"rate": "x"}}, r"Options\.inner\.rate: must be float"),
        ({"inner": {"rate": 10**400}}, r"Options\.inner\.rate: must be a number that float can hold.*1329 bits"),
        ({"inner": 3}, r"Options\.inner: must be an object"),
        ({"table": {"k": None}}, r"Options\.table\.k: must be float, got None"),
        ({"ranks": True}, r"Options\.ranks: must be int or"),
    ],
)
def test_a_wrong_key_or_type_is_refused_by_name(change: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        from_json(Options, to_json(WHOLE) | change)


def test_a_missing_key_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"Options: key 'size' must be given, got nothing"):
        from_json(Options, {"path": "x"})


def test_unknown_methods_and_fields_list_what_there_is() -> None:
    with pytest.raises(UnknownNameError, match=r"adapter method: name must be one of .*flora.*lora.*, got 'magic'"):
        make_config("magic")
    with pytest.raises(ConfigError, match=r"lora config: key must be one of .*lora_alpha.*, got 'rank'"):
        make_config("lora", rank=3)
    assert make_config("lora", r=3) == LoraConfig(r=3)


def test_a_registered_name_is_taken_once() -> None:
    registry: Registry[int] = Registry("number")
    registry.register("one")(1)
    assert registry.get("one") == 1
    assert "one" in registry
    with pytest.raises(UnknownNameError, match="number: a name can be registered once, got 'one'"):
        registry.register("one")


def test_every_method_cites_its_source_and_explains_its_fields() -> None:
    for name, method in METHODS.items():
        assert "arXiv" in method.citation, name
        bases = [base for base in method.config_class.__mro__ if dataclasses.is_dataclass(base)]
        documentation = "\n".join(base.__doc__ or "" for base in bases)
        for entry in dataclasses.fields(method.config_class):
            assert f"{entry.name}:" in documentation, (name, entry.name)


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "a" / "file.json"
    write_json(target, {"x": 1})
    with pytest.raises(ZeroDivisionError), replacing(target) as temporary:
        temporary.write_text(f"half {1 / 0}")
    assert target.read_text() == '{\n  "x": 1\n}\n'
    assert [entry.name for entry in target.parent.iterdir()] == ["file.json"]
    write_text(target, "abc")
    assert sha256_of(target) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    mask = os.umask(0)
    os.umask(mask)
    assert target.stat().st_mode & 0o777 == 0o666 & ~mask


@dataclass(frozen=True)
class Job:
    """What the command does."""

    count: int = 1
    """How many."""


def run_job(job: Job) -> None:
    if job.count < 0:
        raise RankError("--count", "must be positive", job.count, "Raise it")
    if job.count == 0:
        raise KeyboardInterrupt


COMMANDS = [Command("work", Job, run_job, "Works.", "python -m x work --count 2")]


def test_commands_run_and_errors_are_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_commands("x", COMMANDS, ["work", "--count", "2"]) == 0
    assert run_commands("x", COMMANDS, ["work", "--count", "-1"]) == 2
    assert capsys.readouterr().err == "RankError: --count: must be positive, got -1. Raise it.\n"
    assert run_commands("x", COMMANDS, ["work", "--count", "0"]) == 130
    assert "--resume" in capsys.readouterr().err
    assert run_commands("x", COMMANDS, ["sleep"]) == 2
    assert "command must be one of work, got 'sleep'" in capsys.readouterr().err


CHATTY = """
import sys
from dataclasses import dataclass
from shared_peft.command import Command, run_commands

@dataclass
class Nothing:
    pass

def talk(_):
    while True:
        sys.stdout.write("more and more and more and more\\n")

sys.exit(run_commands("x", [Command("talk", Nothing, talk, "Talks.", "python -m x talk")], ["talk"]))
"""


def test_a_command_ends_in_silence_when_nobody_reads_on() -> None:
    with subprocess.Popen([sys.executable, "-c", CHATTY], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == b"more and more and more and more\n"
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(60) == 141


def test_help_opens_with_a_runnable_example(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_commands("x", COMMANDS, []) == 0
    assert capsys.readouterr().out.startswith("Example: python -m x work --count 2\n")
    with pytest.raises(SystemExit) as ended:
        run_commands("x", COMMANDS, ["work", "--help"])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert shown.index("python -m x work --count 2") < shown.index("How many.")
