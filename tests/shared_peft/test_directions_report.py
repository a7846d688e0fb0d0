"""The report on directions against planted changes and brute force."""

import csv
import json
import sys

import pytest
import torch
from torch import nn

from shared_peft import METHODS, PeftModel, get_peft_model, make_config
from shared_peft.directions_command import CSV_COLUMNS, directions_table, write_directions
from shared_peft.directions_picture import draw_directions
from shared_peft.directions_report import directions_methods, directions_of_run, directions_report
from shared_peft.errors import AdapterError, MissingPackageError, RunError
from shared_peft.inject import adapter_layers
from shared_peft.spectrum import RELATIVE_EPSILON, hosvd

PLANTED = [3, 7]
LAYERS = {"linear": lambda: nn.Linear(14, 10), "grouped": lambda: nn.Conv2d(8, 10, 3, groups=2)}


def only_layer(model: PeftModel):
    return next(layer for _, layer in adapter_layers(model))


def with_change(layer: nn.Module, method: str, left, right, *, step: int = 5) -> PeftModel:
    """An adapter of rank 2 whose A and B held ``left right^T`` when it launched on two directions."""
    fields = {"n_directions": 2} if method != "lora_init" else {}
    config = make_config(method, r=2, lora_alpha=2.0, warmup_steps=step, **fields)
    torch.manual_seed(0)
    model = get_peft_model(nn.Sequential(layer), config)
    _, adapter = next(only_layer(model).methods("default"))
    with torch.no_grad():
        adapter.lora_B.copy_(left)
        adapter.lora_A.copy_(right.mT.reshape(adapter.lora_A.shape))
    model.update_and_allocate(step)
    return model


def planted(layer: nn.Module, method: str) -> tuple[PeftModel, torch.Tensor]:
    left, sigma, right = torch.linalg.svd(layer.weight.detach().double().flatten(1), full_matrices=False)
    model = with_change(layer, method, left[:, PLANTED].float() * torch.tensor([0.5, 0.4]), right[PLANTED].mT.float())
    return model, sigma


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("method", directions_methods())
def test_a_change_along_known_directions_is_carried_by_them_whole(kind: str, method: str) -> None:
    torch.manual_seed(0)
    model, sigma = planted(LAYERS[kind](), method)
    _, adapter = next(only_layer(model).methods("default"))
    with torch.no_grad():
        if method == "lora_init":
            adapter.lora_B[:, 0] *= 1.5  # its restart lies on the first chosen direction
        else:
            adapter.dsigma.copy_(torch.tensor([0.3, -0.2]))
    (row,) = directions_report(model)
    assert sorted(row.chosen) == PLANTED
    assert row.step == 5
    assert row.chosen_share == pytest.approx(1.0, abs=1e-5)
    assert row.top_share == pytest.approx(0.0, abs=1e-5)
    assert row.sigma == pytest.approx(sigma.tolist(), rel=1e-4)
    moved = [rate for index, rate in enumerate(row.change_rates) if index not in PLANTED]
    assert max(moved) < 1e-4 * max(row.change_rates)
    eps = RELATIVE_EPSILON * float(sigma[0])
    expected = {"lora_tsd": (0.3, 0.2), "lora_dash": None, "lora_init": (0.5 * float(sigma[row.chosen[0]]), 0.0)}
    if method == "lora_dash":  # B A trained on through the launch
        expected[method] = tuple(
            abs({3: 0.5, 7: 0.4}[index] + d) for index, d in zip(row.chosen, (0.3, -0.2), strict=True)
        )
    rates = [row.change_rates[index] * (float(sigma[index]) + eps) for index in row.chosen]
    assert rates == pytest.approx(list(expected[method]), abs=2e-4)
    assert row.dsigma == pytest.approx([] if method == "lora_init" else [0.3, -0.2])


def test_shares_and_rates_of_any_change_are_those_of_a_brute_force_decomposition() -> None:
    torch.manual_seed(1)
    layer = nn.Linear(14, 10)
    model = with_change(layer, "lora_tsd", torch.randn(10, 2), torch.randn(14, 2))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape))
    change = (only_layer(model).delta_weight("default", only_layer(model).slots[0])).detach().double()
    left, sigma, right = torch.linalg.svd(layer.weight.detach().double(), full_matrices=False)
    along = (left.mT @ change @ right.mT).diagonal().abs()
    (row,) = directions_report(model)
    assert row.change_rates == pytest.approx((along / (sigma + 1e-3 * sigma[0])).tolist(), rel=1e-3)
    assert row.change_norm == pytest.approx(float(change.norm()), rel=1e-6)
    squared = along.square() / change.square().sum()
    assert row.chosen_share == pytest.approx(float(squared[row.chosen].sum()), rel=1e-3)
    assert row.top_share == pytest.approx(float(squared[:2].sum()), rel=1e-3)
    assert 0.01 < row.chosen_share < 0.9


def test_core_entries_of_a_kernel_are_reported_in_the_core_basis() -> None:
    torch.manual_seed(2)
    layer = nn.Conv2d(6, 8, 3)
    config = make_config("lora_dash", r=2, n_directions=3, warmup_steps=1, directions="hosvd")
    model = get_peft_model(nn.Sequential(layer), config)
    _, adapter = next(only_layer(model).methods("default"))
    torch.nn.init.normal_(adapter.lora_B)
    model.update_and_allocate(1)
    with torch.no_grad():
        adapter.lora_B.zero_()
        adapter.dsigma.copy_(torch.tensor([1.0, 2.0, 3.0]))
    (row,) = directions_report(model)
    core = hosvd(layer.weight)[0].abs().flatten()
    assert (row.basis, len(row.sigma)) == ("hosvd", core.numel())
    assert row.sigma == pytest.approx(core.tolist())
    assert row.chosen_share == pytest.approx(1.0, abs=1e-5)
    moved = torch.tensor(row.change_rates) * (core + 1e-3 * core.max())
    assert moved[row.chosen].tolist() == pytest.approx([1.0, 2.0, 3.0], rel=1e-4)
    largest = core.topk(3).indices
    assert row.top_share == pytest.approx(float(moved[largest].square().sum() / 14), abs=1e-6)


def test_directions_of_a_pointwise_convolution_are_its_matrix_s_singular_ones() -> None:
    layer = nn.Conv2d(9, 7, 1)
    model = get_peft_model(nn.Sequential(layer), make_config("lora_dash", r=2, n_directions=3, directions="hosvd"))
    (row,) = directions_report(model)
    assert row.sigma == pytest.approx(torch.linalg.svdvals(layer.weight.flatten(1)).tolist(), rel=1e-4)


def test_before_the_launch_and_without_a_change_there_is_no_share() -> None:
    model = get_peft_model(nn.Sequential(nn.Linear(6, 5)), make_config("lora_tsd", r=2, n_directions=2))
    (row,) = directions_report(model)
    assert (row.chosen, row.dsigma, row.step, row.chosen_share, row.top_share) == ([], [], None, None, None)
    model.update_and_allocate(100)
    (row,) = directions_report(model)
    assert (len(row.chosen), row.step, row.change_norm, row.chosen_share) == (2, 100, 0.0, None)
    assert directions_table([row]).splitlines()[1].split()[:4] == ["0", "100", "-", "-"]


def test_without_matplotlib_nothing_is_written(tmp_path, monkeypatch) -> None:
    model, _ = planted(nn.Linear(14, 10), "lora_tsd")
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingPackageError, match=r'needs the package matplotlib.*pip install "saga-peft\[plot\]"'):
        write_directions(tmp_path / "out", *directions_of_run("run", model))
    assert not (tmp_path / "out").exists()


def test_files_hold_the_rows_and_the_picture_shows_every_layer(tmp_path) -> None:
    torch.manual_seed(0)
    model, _ = planted(nn.Linear(14, 10), "lora_tsd")
    with torch.no_grad():
        next(only_layer(model).methods("default"))[1].dsigma.fill_(0.25)
    method, rows = directions_of_run("run", model)
    write_directions(tmp_path / "out", method, rows)
    stored = json.loads((tmp_path / "out" / "tsd.json").read_text())
    assert stored["method"] == "lora_tsd"
    assert [layer["change_rates"] for layer in stored["layers"]] == [row.change_rates for row in rows]
    with (tmp_path / "out" / "tsd.csv").open(newline="") as stream:
        lines = list(csv.DictReader(stream))
    assert tuple(lines[0]) == CSV_COLUMNS
    assert [float(line["change_rate"]) for line in lines] == rows[0].change_rates
    assert {int(line["direction"]): float(line["dsigma"]) for line in lines if line["chosen"] == "1"} == {
        3: 0.25,
        7: 0.25,
    }
    heat_map, bars = draw_directions(method, rows).axes[:2]
    assert [label.get_text() for label in heat_map.get_yticklabels()] == ["0"]
    places = sorted(float(x) for x, _ in heat_map.collections[0].get_offsets())
    assert places == pytest.approx([3.5 / 10, 7.5 / 10])
    rates = dict(zip(rows[0].sigma, rows[0].change_rates, strict=True))
    largest_first = [rates[sigma] for sigma in sorted(rates, reverse=True)]
    drawn = heat_map.images[0].get_array()[0].tolist()
    assert drawn == pytest.approx([max(rate, min(drawn)) for rate in largest_first], rel=1e-5)
    assert list(heat_map.get_xticks()) == [0, 0.25, 0.5, 0.75, 1]
    assert tuple(heat_map.images[0].get_extent()) == (0, 1, 0.5, -0.5)
    assert bars.get_xlim() == (0, 100)
    assert [patch.get_width() for patch in bars.patches] == pytest.approx([100.0, 0.0], abs=1e-3)
    assert (tmp_path / "out" / "tsd.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("method", [name for name in METHODS.names() if name not in directions_methods()])
def test_a_run_of_another_method_is_refused_by_name(method: str) -> None:
    model = get_peft_model(nn.Sequential(nn.Linear(14, 13)), make_config(method))
    with pytest.raises(RunError, match=f"folder: must be a run of lora_dash, lora_init, lora_tsd, .*, got {method}"):
        directions_of_run("folder", model)
    with pytest.raises(AdapterError, match="must be an adapter of lora_dash, lora_init, lora_tsd"):
        directions_report(model)


def test_a_run_without_adapter_is_refused() -> None:
    with pytest.raises(RunError, match="got a run without adapter"):
        directions_of_run("folder", nn.Linear(2, 2))
