"""Which directions of each weight a run moved, and how much of the change they carry (arXiv:2409.01035v5, Sec. 3).

Plain rows, a text table, csv lines, and a picture drawn on a figure that the caller brings.
"""

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from shared_peft.atomic import replacing, write_json
from shared_peft.config import to_json
from shared_peft.errors import AdapterError, RunError
from shared_peft.factors import Factors
from shared_peft.inject import adapter_layers
from shared_peft.method import METHODS, method_name
from shared_peft.model import PeftModel
from shared_peft.spectrum import RELATIVE_EPSILON, Basis, change_rates, core_change_rates, hosvd, singular_directions
from shared_peft.task_directions import NOT_LAUNCHED, TaskDirections

_COLUMNS = 160  # of the heat map, at most
_ACCENT = "#c2410c"
CSV_COLUMNS = ("layer", "direction", "sigma", "change_rate", "chosen", "dsigma")


@dataclass(frozen=True)
class DirectionsRow:
    """One adapted weight.

    Args:
        layer: full name of the layer (and slot).
        basis: "matrix": singular directions by falling singular value; "hosvd": entries of the flattened HOSVD core.
        sigma: the frozen weight's coordinate along each direction, never negative.
        change_rates: how far the run's whole change moves each direction relative to ``sigma``.
        chosen: the directions the method chose, by falling change rate when it chose them; empty before the launch.
        dsigma: trained change of each chosen direction's coordinate; empty for a method that trains none.
        step: optimiser step at which the directions were chosen, None before.
        change_norm: Frobenius norm of the change.
        chosen_share: part of the change's squared norm along the chosen directions, in [0, 1]; None without a choice
            or a change.
        top_share: the same for as many directions with the largest ``sigma``, to compare with.
    """

    layer: str
    basis: Basis
    sigma: list[float]
    change_rates: list[float]
    chosen: list[int]
    dsigma: list[float]
    step: int | None
    change_norm: float
    chosen_share: float | None
    top_share: float | None


def directions_methods() -> tuple[str, ...]:
    """Return the names of the methods that choose task-specific directions."""
    return tuple(name for name, method in METHODS.items() if issubclass(method, TaskDirections))


def directions_of_run(where: object, model: nn.Module) -> tuple[str, list[DirectionsRow]]:
    """Return the method of a run's model and its `directions_report`.

    Args:
        where: the run's folder, for the error message.
        model: the run's model, a PeftModel with one adapter where it used an adapter.

    Raises:
        RunError: the run's method chooses no directions; the message names those that do.
    """
    configs = list(model.peft_config.values()) if isinstance(model, PeftModel) else []
    method = method_name(configs[0]) if configs else "a run without adapter"
    if not isinstance(model, PeftModel) or method not in directions_methods():
        must = f"must be a run of {', '.join(directions_methods())}, which choose task-specific directions"
        raise RunError(where, must, method, "Fine-tune with --method lora_tsd")
    return method, directions_report(model, model.active_adapters[0])


def directions_report(model: nn.Module, adapter_name: str = "default") -> list[DirectionsRow]:
    """Return one row for each weight that a LoRA-Dash, LoRA-Init or LoRA-TSD adapter changes.

    Rates are those of the change as it is now, relative to the frozen weight, not those the choice was made by. The
    share of the chosen directions is ours: sum over I of (u_i^T dW v_i)^2 / ||dW||_F^2.

    Args:
        model: a model that carries the adapter, not merged.
        adapter_name: the adapter.

    Raises:
        AdapterError: no weight of the model carries such an adapter.
    """
    rows = [
        _row(layer.spec(slot).name, layer.frozen_weight(slot).detach(), method)
        for _, layer in adapter_layers(model)
        for slot, method in layer.methods(adapter_name)
        if isinstance(method, TaskDirections)
    ]
    if not rows:
        must = f"must be an adapter of {', '.join(directions_methods())}"
        raise AdapterError(adapter_name, must, "none", "Choose another adapter")
    return rows


@torch.no_grad()
def _row(name: str, weight: Tensor, method: TaskDirections) -> DirectionsRow:
    sigma, rates = _spectrum(weight, method.factors(), method.basis)
    launched = int(method.launched_at) != NOT_LAUNCHED
    change = method.delta_weight(weight).flatten(1).double()
    norm = change.square().sum()
    chosen_share = top_share = None
    if launched and norm > 0:
        along = ((method.left.double().mT @ change) * method.right.double().mT).sum(1)
        chosen_share = float(along.square().sum() / norm)
        moved = rates.double() * (sigma + RELATIVE_EPSILON * sigma.max())  # |u_i^T dW v_i| again
        top_share = float(moved[sigma.topk(len(along)).indices].square().sum() / norm)
    return DirectionsRow(
        layer=name,
        basis=method.basis if weight[0, 0].numel() > 1 else "matrix",
        sigma=sigma.tolist(),
        change_rates=rates.tolist(),
        chosen=method.indices.tolist() if launched else [],
        dsigma=method.dsigma.tolist() if launched and method.dashes else [],
        step=int(method.launched_at) if launched else None,
        change_norm=float(norm.sqrt()),
        chosen_share=chosen_share,
        top_share=top_share,
    )


def _spectrum(weight: Tensor, change: Factors, basis: Basis) -> tuple[Tensor, Tensor]:
    """Return the weight's coordinates and the change rates of all its directions, both of shape (directions,)."""
    if basis == "hosvd" and weight[0, 0].numel() > 1:
        core, factors = hosvd(weight)
        return core.abs().flatten(), core_change_rates(core, factors, change).flatten()
    left, sigma, right = singular_directions(weight)
    return sigma, change_rates(left, sigma, right, change.out_factor, change.core.flatten(1))


def directions_table(rows: Sequence[DirectionsRow]) -> str:
    """Return a text table: a line a weight with the chosen directions and what they carry of the change."""
    width = max(len("layer"), *(len(row.layer) for row in rows))
    lines = [f"{'layer':<{width}}  {'step':>5}  {'carried':>8}  {'by top':>8}  {'|dW|':>9}  chosen directions"]
    for row in rows:
        step = "-" if row.step is None else str(row.step)
        shown = " ".join(map(str, row.chosen[:8])) + (" ..." if len(row.chosen) > 8 else "")
        shares = f"{_percent(row.chosen_share):>8}  {_percent(row.top_share):>8}"
        lines.append(f"{row.layer:<{width}}  {step:>5}  {shares}  {row.change_norm:>9.3g}  {shown}".rstrip())
    return "\n".join(lines)


def write_directions(folder: Path, method: str, rows: Sequence[DirectionsRow], figure: Any) -> None:
    """Write tsd.json (the rows), tsd.csv (a line a direction) and tsd.png, each whole or not at all.

    Args:
        folder: where to write; made if it is missing.
        method: name of the run's method.
        rows: see `directions_report`.
        figure: an empty matplotlib figure with constrained layout, to draw on.
    """
    write_json(folder / "tsd.json", {"method": method, "layers": [to_json(row) for row in rows]})
    with replacing(folder / "tsd.csv") as temporary, temporary.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream, lineterminator="\n").writerows((CSV_COLUMNS, *_csv_rows(rows)))
    draw_directions(figure, method, rows)
    with replacing(folder / "tsd.png") as temporary:
        figure.savefig(temporary, format="png", dpi=150)


def draw_directions(figure: Any, method: str, rows: Sequence[DirectionsRow]) -> None:
    """Draw change rates by weight and direction, the chosen ones marked, beside the part of the change they carry."""
    figure.set_size_inches(11, 1.7 + 0.19 * max(len(rows), 5))
    map_axis, bar_axis = figure.subplots(1, 2, sharey=True, width_ratios=(3.4, 1))
    _draw_rates(map_axis, figure, rows)
    map_axis.set_title(f"{method}: change rate of each direction; dots: chosen directions", fontsize=9)
    for shift, colour, label, name in (
        (-0.2, _ACCENT, "chosen directions", "chosen_share"),
        (0.2, "#52606d", "as many with largest sigma", "top_share"),
    ):
        widths = [100 * (getattr(row, name) or 0.0) for row in rows]
        bar_axis.barh([y + shift for y in range(len(rows))], widths, height=0.38, color=colour, label=label)
    bar_axis.set_xlim(0, min(100, max(5, 1.1 * bar_axis.get_xlim()[1])))
    bar_axis.tick_params(labelsize=7, left=False)
    bar_axis.set_xlabel("carried part of ||dW||$^2$ [%]", fontsize=8)
    bar_axis.spines[["top", "right"]].set_visible(False)
    figure.legend(*bar_axis.get_legend_handles_labels(), loc="outside upper right", ncols=2, fontsize=7, frameon=False)


def _draw_rates(axis: Any, figure: Any, rows: Sequence[DirectionsRow]) -> None:
    """Draw the heat map, colours from the 5th percentile of the rates to the largest, and mark what was chosen."""
    columns = min(_COLUMNS, max(len(row.sigma) for row in rows))
    rates = torch.stack([_binned(row, columns) for row in rows])
    lowest = max(float(rates.quantile(0.05)), 1e-4 * float(rates.max()), 1e-12)
    extent = (0, 1, len(rows) - 0.5, -0.5)
    image = axis.imshow(rates.clamp_min(lowest).numpy(), cmap="Blues", norm="log", aspect="auto", extent=extent)
    points = [(x, y) for y, row in enumerate(rows) for x in _places(row)]
    axis.scatter([x for x, _ in points], [y for _, y in points], s=14, c=_ACCENT, lw=0.4, edgecolors="white")
    axis.set_xticks((0, 0.25, 0.5, 0.75, 1), ("largest", "1/4", "1/2", "3/4", "smallest"), fontsize=8)
    axis.set_xlabel("direction, by falling singular value of the frozen weight", fontsize=8)
    axis.set_yticks(range(len(rows)), [row.layer for row in rows], fontsize=7)
    bar = figure.colorbar(image, ax=axis, location="bottom", shrink=0.5, pad=0.01, aspect=50)
    bar.ax.tick_params(labelsize=7)
    bar.set_label("change rate", fontsize=8)


def _binned(row: DirectionsRow, columns: int) -> Tensor:
    """Return the largest change rate in each of ``columns`` equal parts of the spectrum, shape (columns,)."""
    order = torch.tensor(row.sigma).argsort(descending=True, stable=True)
    rates = torch.tensor(row.change_rates)[order]
    return functional.adaptive_max_pool1d(rates[None], columns)[0]


def _places(row: DirectionsRow) -> list[float]:
    """Return where in the spectrum, from 0 (largest singular value) to 1, the chosen directions lie."""
    order = torch.tensor(row.sigma).argsort(descending=True, stable=True).argsort()
    return [(int(order[index]) + 0.5) / len(order) for index in row.chosen]


def _csv_rows(rows: Sequence[DirectionsRow]) -> Iterator[tuple[Any, ...]]:
    """Yield CSV_COLUMNS for each direction of each weight; dsigma is "" where none is trained."""
    for row in rows:
        dsigma = dict(zip(row.chosen, row.dsigma, strict=False))
        for index, (sigma, rate) in enumerate(zip(row.sigma, row.change_rates, strict=True)):
            yield row.layer, index, sigma, rate, int(index in row.chosen), dsigma.get(index, "")


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f} %"
