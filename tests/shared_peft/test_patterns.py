"""Regular expressions from a file: those that would never end are refused in seconds, all others mean what they did."""

import json
import re
import time
from pathlib import Path

import pytest
import torch
from torch import nn

from shared_peft import LoraConfig, PeftModel, get_peft_model
from shared_peft.errors import ConfigError
from shared_peft.patterns import LIMIT_S, check_patterns, or_suffix

NAMES = ["layers", "layers.0", f"layers.0.{'a' * 60}"]
ENDLESS = [r"([\w.]+)+!", r"(\w|\w\w|\.)*!", "(.*.*.*)*!", "(" + "(.|a?)" * 40 + ")!", r"((.+)\2?)+!"]


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.ModuleDict({"layers": nn.ModuleList([nn.ModuleDict({"a" * 60: nn.Linear(4, 4)})])})


@pytest.mark.parametrize("field", ["target_modules", "exclude_modules", "rank_pattern", "alpha_pattern"])
def test_a_file_whose_pattern_never_ends_is_refused_in_seconds(field: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("shared_peft.patterns.LIMIT_S", 0.5)
    get_peft_model(network(), LoraConfig(r=2)).save_pretrained(tmp_path)
    path = tmp_path / "adapter_config.json"
    endless = ENDLESS[0] if field.endswith("modules") else {ENDLESS[0]: 2}
    path.write_text(json.dumps(json.loads(path.read_text()) | {field: endless}))
    start = time.perf_counter()
    with pytest.raises(ConfigError, match=r"adapter_config\.json: its regular expressions must match .* within 0\.5 s"):
        PeftModel.from_pretrained(network(), tmp_path)
    assert time.perf_counter() - start < 10  # two to the power of sixty steps otherwise


@pytest.mark.parametrize("pattern", ENDLESS)
def test_endless_patterns_of_every_kind_are_told(pattern: str, monkeypatch) -> None:
    monkeypatch.setattr("shared_peft.patterns.LIMIT_S", 0.5)
    with pytest.raises(ConfigError, match="without repeats inside repeats"):
        check_patterns({"target_modules": pattern}, NAMES, "file")


def test_ordinary_patterns_pass_and_those_that_cannot_run_long_start_no_process(monkeypatch) -> None:
    ordinary = {"target_modules": r".*\.(q|v)_proj", "rank_pattern": {r"layers\.[0-9]+": 2}, "r": 3, "odd_modules": 7}
    check_patterns(ordinary, NAMES, "file")
    monkeypatch.setattr("subprocess.run", lambda *args, **options: pytest.fail("a process was started"))
    plain = {"target_modules": "all-linear", "exclude_modules": r"layers\.0|head", "rank_pattern": {"layers.0": 2}}
    check_patterns({**plain, "modules_to_save": ["(a+)+"]}, NAMES, "file")


def test_what_is_tried_is_what_is_matched() -> None:
    assert LIMIT_S == 5
    assert re.fullmatch(or_suffix("q|v"), "a.b.v")
    assert not re.fullmatch(or_suffix("q|v"), "a.bv")
