"""The comparison: equal budgets, rates chosen inside the shots, results kept."""

import json
import statistics

import pytest

from shared_peft.errors import ConfigError, RunError, UnknownNameError
from vision.compare import CompareConfig, compare, format_table
from vision.protocol import best_rate

pytestmark = pytest.mark.filterwarnings("ignore:ranks lowered")


def config(run, out, **changes) -> CompareConfig:
    values = {"methods": ("probe", "lora", "flora", "full"), "shots": 4, "seeds": 2, "epochs": 1, "budget": 3_000}
    values |= {"folds": 2, "validated_folds": 1, "rate_factors": (0.5, 1.0), "augment": "none", **changes}
    return CompareConfig("small_conv", "digits", out, checkpoint=run, **values)


@pytest.fixture(scope="module")
def compared(small_conv_run, tmp_path_factory):
    out = tmp_path_factory.mktemp("compare") / "run"
    return out, compare(config(small_conv_run, out))


def test_no_adapter_has_more_parameters_than_the_budget(compared):
    _, rows = compared
    adapters = {row.method: row.adapter for row in rows if row.method in ("lora", "flora")}
    assert len(adapters) == 2
    assert all(1_000 < count <= 3_000 for count in adapters.values())


def test_methods_without_a_rank_with_a_shrinking_one_and_unmerged_ones_are_compared_too(small_conv_run, tmp_path):
    quick = {"methods": ("ssl", "ia3", "adalora", "mpc_n"), "seeds": 1, "rate_factors": (1.0,)}
    rows = compare(config(small_conv_run, tmp_path / "run", **quick))
    assert [row.method for row in rows] == list(quick["methods"])
    adapters = {row.method: row.adapter for row in rows}
    assert adapters["ssl"] == 1 + 24 + 24 + 48  # one factor for every input channel
    assert adapters["ia3"] == 24 + 24 + 48 + 48
    assert 1_000 < min(adapters["adalora"], adapters["mpc_n"]) <= max(adapters.values()) <= 3_000


def test_means_and_deviations_are_those_of_the_kept_results(compared):
    out, rows = compared
    cells = json.loads((out / "cells.json").read_text())
    for row in rows:
        kept = [cells[f"seed/{row.method}/{seed}"]["macro_f1"] for seed in range(2)]
        assert row.macro_f1 == pytest.approx(statistics.mean(kept))
        assert row.macro_f1_sd == pytest.approx(statistics.stdev(kept))
        assert f"{100 * row.macro_f1:.1f} +- {100 * row.macro_f1_sd:.1f}" in format_table(rows)


def test_the_chosen_rate_is_the_best_of_the_pilot(compared):
    out, rows = compared
    cells = json.loads((out / "cells.json").read_text())
    for row in rows:
        pilots = {k.split("/")[2]: v["accuracy"] for k, v in cells.items() if k.startswith(f"pilot/{row.method}/")}
        assert len(pilots) == 2
        assert pilots[f"{row.learning_rate:.3g}"] == max(pilots.values())


def test_a_resumed_comparison_keeps_what_was_done_and_runs_the_rest(small_conv_run, compared, monkeypatch):
    out, rows = compared
    cells = json.loads((out / "cells.json").read_text())
    removed = cells.pop("seed/flora/1")
    (out / "cells.json").write_text(json.dumps(cells))
    import vision.compare as module

    original, calls = module.run_cell, []
    monkeypatch.setattr(module, "run_cell", lambda *given: calls.append(1) or original(*given))
    again = compare(config(small_conv_run, out, resume=True))
    assert len(calls) == 1
    redone = json.loads((out / "cells.json").read_text())["seed/flora/1"]
    assert redone["accuracy"] == removed["accuracy"]
    assert [row.macro_f1 for row in again] == [row.macro_f1 for row in rows]


def test_the_smaller_of_equally_good_rates_is_chosen():
    assert best_rate((3.0, 1.0, 2.0), lambda rate: 0.5) == 1.0
    assert best_rate((3.0, 1.0, 2.0), lambda rate: rate) == 3.0


def test_what_cannot_be_compared_is_refused(small_conv_run, tmp_path, compared):
    for changes, error, message in (
        ({"methods": ("probe", "lorra")}, UnknownNameError, "got 'lorra'"),
        ({"methods": ("probe", "probe")}, ConfigError, "--methods: must be different values"),
        ({"validated_folds": 3}, ConfigError, "--validated-folds: must be in"),
        ({"shots": 1}, ConfigError, "at least as many shots as folds"),
    ):
        with pytest.raises(error, match=message):
            compare(config(small_conv_run, tmp_path / "out", **changes))
    with pytest.raises(RunError, match="must be a new folder"):
        compare(config(small_conv_run, compared[0]))
