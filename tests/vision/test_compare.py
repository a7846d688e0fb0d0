"""The comparison: equal budgets, rates chosen inside the shots, every training kept, one truth in all files."""

import contextlib
import csv
import json
import re
import statistics

import numpy as np
import pytest
import torch

from shared_peft.command import run_commands
from shared_peft.errors import ConfigError, MissingPackageError, RankError, RunError, UnknownNameError
from vision.commands import COMMANDS
from vision.compare import CompareConfig, compare
from vision.comparison.counts import parse_count
from vision.comparison.tuning import best_rate

pytestmark = pytest.mark.filterwarnings("ignore:ranks lowered")
METHODS = ("probe", "bitfit", "lora", "flora", "full")


def config(run, out, **changes) -> CompareConfig:
    values = {"methods": METHODS, "shots": (1, 4), "seeds": 2, "epochs": 1, "budget": "3k"}
    values |= {
        "folds": 2,
        "validated_folds": 1,
        "rate_factors": (0.5, 1.0),
        "augment": "none",
        "classes": tuple("012"),
        **changes,
    }
    return CompareConfig("small_conv", "digits", out, checkpoint=run, **values)


@pytest.fixture(scope="module")
def compared(small_conv_run, tmp_path_factory):
    out = tmp_path_factory.mktemp("compare") / "run"
    return out, compare(config(small_conv_run, out))


def kept(out) -> dict:
    return json.loads((out / "cells.json").read_text())


def test_adapters_have_the_budget_and_not_a_parameter_more(compared):
    _, done = compared
    adapters = {row.method: row.adapter for row in done.rows if row.method in ("lora", "flora")}
    assert done.budget == 3_000
    one_more = {"lora": 9 + 24 + 216 + 24 + 216 + 48 + 432 + 48}  # in * kernel + out of every convolution
    assert 3_000 - one_more["lora"] < adapters["lora"] <= 3_000
    assert 2_500 < adapters["flora"] <= 3_000


def test_bitfit_trains_the_biases_and_shifts_and_the_head_alone(compared):
    _, done = compared
    row = next(row for row in done.rows if row.method == "bitfit")
    assert row.adapter == 24 + 24 + 48 + 48
    assert row.trainable == row.adapter + 48 * 3 + 3


def test_methods_without_a_rank_with_a_shrinking_one_and_unmerged_ones_are_compared_too(small_conv_run, tmp_path):
    quick = {"methods": ("ssl", "ia3", "adalora", "mpc_n"), "shots": (4,), "seeds": 1, "rate_factors": (1.0,)}
    rows = compare(config(small_conv_run, tmp_path / "run", **quick)).rows
    assert [row.method for row in rows] == list(quick["methods"])
    adapters = {row.method: row.adapter for row in rows}
    assert adapters["ssl"] == 1 + 24 + 24 + 48  # one factor for every input channel
    assert adapters["ia3"] == 24 + 24 + 48 + 48
    assert 1_000 < min(adapters["adalora"], adapters["mpc_n"]) <= max(adapters.values()) <= 3_000


def test_means_and_deviations_are_those_of_the_kept_results(compared):
    out, done = compared
    assert [(row.shots, row.method) for row in done.rows] == [(k, method) for k in (1, 4) for method in METHODS]
    for row in done.rows:
        cells = [kept(out)[f"seed/{row.method}/{row.shots}/{seed}"] for seed in range(2)]
        scores = [cell["accuracy"] for cell in cells]
        assert row.score == pytest.approx(statistics.mean(scores))
        assert row.score_sd == pytest.approx(statistics.stdev(scores))
        assert row.macro_f1_sd == pytest.approx(statistics.stdev(cell["macro_f1"] for cell in cells))
        assert f"{100 * row.score:.1f} +- {100 * row.score_sd:.1f}" in (out / "table.txt").read_text()


def test_differences_are_those_of_the_means(compared):
    out, done = compared
    scores = {(row.shots, row.method): row.score for row in done.rows}
    assert len(done.differences) == 2 * 5 * 4 / 2
    for found in done.differences:
        expected = scores[found.shots, found.row] - scores[found.shots, found.other]
        assert found.mean == pytest.approx(expected, abs=1e-12)
    stored = json.loads((out / "results.json").read_text())["differences"]
    assert [pair["within_noise"] for pair in stored] == [found.within_noise for found in done.differences]


def test_the_chosen_rate_is_the_best_of_the_pilot_and_one_shot_has_none(compared):
    out, done = compared
    for row in done.rows:
        pilots = {key.split("/")[3]: cell["score"] for key, cell in kept(out).items() if f"pilot/{row.method}/" in key}
        assert len(pilots) == 2
        if row.shots == 4:
            assert pilots[f"{row.learning_rate:.3g}"] == max(pilots.values())
            assert row.rate_from == "validated at 4 shots, at the edge of those tried"
        else:
            assert row.rate_from == "not validated"
    assert not any(key.startswith("pilot/") and key.split("/")[2] == "1" for key in kept(out))


def test_rates_tuned_at_one_number_of_shots_serve_all(small_conv_run, tmp_path):
    done = compare(config(small_conv_run, tmp_path / "run", methods=("lora",), seeds=1, tune_shots=3))
    assert {row.rate_from.split(",")[0] for row in done.rows} == {"validated at 3 shots"}
    assert len({row.learning_rate for row in done.rows}) == 1
    pilots = [key for key in kept(tmp_path / "run") if key.startswith("pilot/")]
    assert len(pilots) == 2
    assert all("/3/" in key for key in pilots)


def test_every_file_of_the_results_tells_the_same(compared):
    out, done = compared
    with (out / "results.csv").open(newline="") as stream:
        lines = list(csv.DictReader(stream))
    assert len(lines) == 2 * 5 * 2
    cells = kept(out)
    for line in lines:
        cell = cells[f"seed/{line['method']}/{line['shots']}/{line['seed']}"]
        assert {name: float(line[name]) for name in ("score", "trainable", "seconds")} == {
            name: float(cell[name]) for name in ("score", "trainable", "seconds")
        }
    page = (out / "results.html").read_text()
    for row in done.rows:
        for value in (row.score, row.score_sd, row.macro_f1):
            assert f'<data value="{value!r}">{100 * value:.1f} %</data>' in page
    assert page.count("data:image/png;base64,") == 3
    assert re.findall(r"(?:src|href)=\"(?!data:|#)", page) == []
    assert all((out / f"{name}.png").stat().st_size > 10_000 for name in ("learning_curves", "parameters", "time"))


def test_a_resumed_comparison_keeps_what_was_done_and_runs_the_rest(small_conv_run, compared, monkeypatch):
    out, done = compared
    cells = kept(out)
    removed = cells.pop("seed/flora/4/1")
    (out / "cells.json").write_text(json.dumps(cells))
    import vision.compare as module

    original, calls = module.run_cell, []
    monkeypatch.setattr(module, "run_cell", lambda *given: calls.append(given[1:]) or original(*given))
    again = compare(config(small_conv_run, out, resume=True))
    assert [(row.name, shots, seed) for row, shots, seed in calls] == [("flora", 4, 1)]
    assert kept(out)["seed/flora/4/1"]["score"] == removed["score"]
    assert [row.macro_f1 for row in again.rows] == [row.macro_f1 for row in done.rows]
    assert again.differences == done.differences


def test_a_comparison_interrupted_between_trainings_and_answers_ends_like_the_uninterrupted_one(
    small_conv_run, tmp_path, monkeypatch
):
    asked = {"methods": ("probe", "ia3"), "shots": (2,)}
    whole = compare(config(small_conv_run, tmp_path / "whole", **asked))
    import vision.comparison.cells as module

    out, writes, original = tmp_path / "run", [], module.write_tensors
    for stop in (1, 3, 0):  # which writing of answers is cut short, of those still to come

        def write(path, tensors, stop=stop):
            writes.append(path)
            if len(writes) == stop:
                raise KeyboardInterrupt
            original(path, tensors)

        writes.clear()
        monkeypatch.setattr(module, "write_tensors", write)
        with contextlib.suppress(KeyboardInterrupt):
            done = compare(config(small_conv_run, out, resume=(out / "config.json").exists(), **asked))
    assert len(writes) == 2
    assert [row.score for row in done.rows] == [row.score for row in whole.rows]
    assert done.differences == whole.differences


def test_a_comparison_may_grow_by_methods_and_shots_but_keeps_its_recipe(small_conv_run, tmp_path):
    out, quick = tmp_path / "run", {"rate_factors": (1.0,)}
    compare(config(small_conv_run, out, methods=("probe",), shots=(2,), seeds=1, **quick))
    first = kept(out)["seed/probe/2/0"]
    grown = config(small_conv_run, out, methods=("probe", "ia3"), shots=(2, 3), seeds=2, resume=True, **quick)
    assert len(compare(grown).rows) == 4
    assert kept(out)["seed/probe/2/0"] == first
    with pytest.raises(RunError, match="must keep its configuration, got changes in epochs"):
        compare(config(small_conv_run, out, methods=("probe",), epochs=2, resume=True, **quick))


def test_answers_to_other_images_are_refused(small_conv_run, tmp_path):
    from shared_peft.weights import write_tensors

    out, asked = tmp_path / "run", {"methods": ("probe",), "shots": (2,), "seeds": 1, "rate_factors": (1.0,)}
    compare(config(small_conv_run, out, **asked))
    write_tensors(out / "answers" / "seed-probe-2-0.safetensors", {"evidence": torch.ones(3)})
    with pytest.raises(RunError, match=r"must hold answers to the \d+ test images, got 3"):
        compare(config(small_conv_run, out, resume=True, **asked))


def test_several_labels_an_image_are_compared_by_mean_average_precision(small_conv_run, tmp_path):
    from PIL import Image

    generator = np.random.default_rng(0)
    lines = ["path,label,split"]
    for index in range(36):
        red, blue = generator.integers(0, 2, 2)
        noise = generator.integers(0, 60, (8, 8, 3)) + 190 * np.array([red, 0, blue])
        Image.fromarray(noise.astype(np.uint8)).save(tmp_path / f"{index}.png")
        labels = "|".join(name for name, there in (("red", red), ("blue", blue)) if there)
        lines.append(f"{index}.png,{labels},{'train' if index < 20 else 'test'}")
    (tmp_path / "list.csv").write_text("\n".join(lines) + "\n")
    asked = {"methods": ("probe", "lora"), "shots": (4,), "rate_factors": (1.0,), "budget": "2k"}
    values = {"seeds": 2, "epochs": 3, "checkpoint": small_conv_run, **asked}
    done = compare(CompareConfig("small_conv", str(tmp_path / "list.csv"), tmp_path / "run", **values))
    assert done.title == "mAP"
    for row in done.rows:
        cells = [kept(tmp_path / "run")[f"seed/{row.method}/4/{seed}"] for seed in range(2)]
        assert row.score == pytest.approx(statistics.mean(cell["score"] for cell in cells))
    scores = {row.method: row.score for row in done.rows}
    assert done.differences[0].mean == pytest.approx(scores["probe"] - scores["lora"], abs=1e-12)


def test_lists_are_apart_by_commas_or_spaces_and_the_table_is_printed(small_conv_run, tmp_path, capsys):
    words = ["--backbone", "small_conv", "--data", "digits", "--checkpoint", str(small_conv_run), "--seeds", "1"]
    words += ["--classes", "0", "1", "--epochs", "1", "--rate-factors", "1", "--budget", "2k", "--shots"]
    for name, lists in (
        ("comma", ["1,2", "--methods", "probe,lora"]),
        ("space", ["1", "2", "--methods", "probe", "lora"]),
    ):
        assert run_commands("vision", COMMANDS, ["compare", *words, *lists, "--out", str(tmp_path / name)]) == 0
    shown = capsys.readouterr().out
    assert (tmp_path / "comma" / "table.txt").read_text() in shown
    tables = [json.loads((tmp_path / name / "results.json").read_text())["rows"] for name in ("comma", "space")]
    assert [[row["score"] for row in rows] for rows in tables][0] == [row["score"] for row in tables[1]]
    assert [(row["shots"], row["method"]) for row in tables[0]] == [(k, m) for k in (1, 2) for m in ("probe", "lora")]


@pytest.mark.parametrize(("text", "count"), [("20k", 20_000), ("1.5M", 1_500_000), ("20000", 20_000), ("2_500", 2_500)])
def test_counts_are_read_as_people_write_them(text, count):
    assert parse_count(text, "--budget") == count


def test_the_smaller_of_equally_good_rates_is_chosen():
    assert best_rate((3.0, 1.0, 2.0), lambda rate: 0.5) == 1.0
    assert best_rate((3.0, 1.0, 2.0), lambda rate: rate) == 3.0


def test_what_cannot_be_compared_is_refused_before_anything_is_written(small_conv_run, tmp_path, compared):
    for changes, error, message in (
        ({"methods": ("probe", "lorra")}, UnknownNameError, "got 'lorra'"),
        ({"methods": ("probe", "probe")}, ConfigError, "--methods: must be different values"),
        ({"shots": (4, 4)}, ConfigError, "--shots: must be different values"),
        ({"shots": (0,)}, ConfigError, "--shots: must be at least 1"),
        ({"validated_folds": 3}, ConfigError, "--validated-folds: must be in"),
        ({"tune_shots": 1}, ConfigError, "--tune-shots: must be at least 2"),
        ({"budget": "many"}, ConfigError, "--budget: must be a number of at least 1"),
        ({"budget": "10"}, RankError, "must allow rank 1"),
        ({"augment": "lihgt"}, UnknownNameError, "got 'lihgt'"),
        ({"against": ("pfet",)}, UnknownNameError, "must be one of peft, got 'pfet'"),
        ({"methods": ("probe",), "against": ("peft",)}, ConfigError, "--against peft: stands beside method lora"),
    ):
        with pytest.raises(error, match=message):
            compare(config(small_conv_run, tmp_path / "out", **changes))
    assert not (tmp_path / "out").exists()
    with pytest.raises(RunError, match="must be a new folder"):
        compare(config(small_conv_run, compared[0]))


def test_a_missing_rival_package_is_told_with_the_extra_that_brings_it(small_conv_run, tmp_path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(MissingPackageError, match=r'pip install "saga-peft\[bench\]"'):
        compare(config(small_conv_run, tmp_path / "out", against=("peft",)))
    assert not (tmp_path / "out").exists()
