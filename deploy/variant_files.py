"""Make the variants that were asked for, measure each beside the fp32 file, and refuse what fails its gate."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from deploy.layout import VariantEntry
from deploy.parity import TOLERANCE
from deploy.rows import MeasuredRows, Runner, answers, compare_rows, rows_of
from deploy.session import open_runner
from deploy.variants import Material, VariantOptions, wanted_variants
from shared_peft.errors import ExportError
from shared_peft.training import TrainedModel

_MOST_EXACT = 32  # ours: rows that tell whether two fp32 files answer alike


@dataclass(frozen=True)
class ModelFiles:
    """The fp32 file of a bundle and its twin: the same model exported with random weights."""

    model: Path
    twin: Path


def make_variants(
    trained: TrainedModel, files: ModelFiles, options: VariantOptions, report: Callable[[str], None]
) -> dict[str, VariantEntry]:
    """Write the variants into the folder of the fp32 file.

    Args:
        trained: what a run gave.
        files: the finished fp32 file and its twin.
        options: which variants.
        report: is told each file in one line.

    Returns:
        What the manifest says of each, by name.

    Raises:
        ExportError: a gate failed, or a file cannot be made.
    """
    wanted = wanted_variants(options)
    if not wanted:
        return {}
    rows = rows_of(trained, labelled=options.int8 != "none")
    material = Material(files.model.parent, files.model, files.twin, rows, options)
    reference = open_runner(files.model, threads=1)
    entries = {}
    for name, variant in wanted:
        path = material.folder / variant.file_name
        precision = variant.write(material, path)
        measured = _measured(reference, open_runner(path, threads=1), rows, variant.batch, exact=precision == "fp32")
        entry = VariantEntry(path.name, precision, variant.batch, variant.runtime, measured)
        check_variant(name, entry, options.max_drop)
        report(f"wrote {path.name}: {_said(entry, path.stat().st_size / files.model.stat().st_size)}")
        entries[name] = entry
    return entries


def _measured(reference: Runner, run: Runner, rows: MeasuredRows, batch: int, *, exact: bool) -> dict[str, float]:
    batch = batch or (0 if exact else 1)  # as a phone gives them: dynamic scales depend on the rows given at once
    step = max(1, len(rows.inputs) // _MOST_EXACT) if exact else 1
    inputs, labels = rows.inputs[::step], None if exact or rows.labels is None else rows.labels
    return compare_rows(answers(reference, inputs, batch), answers(run, inputs, batch), labels)


def check_variant(name: str, entry: VariantEntry, max_drop: float) -> None:
    """Raise ExportError, naming the number that failed, where a variant does not answer as it must.

    In fp32 it must answer as the model file does. Otherwise it may lose ``max_drop`` points of accuracy; where no true
    classes are known, the model file's take their place.
    """
    measured = entry.measured
    where, rows = f"{name} gate, {entry.file}", f"on {measured['rows']:.0f} rows"
    fix = "Raise --max-drop, or export without it"
    if not np.isfinite(measured["max_abs_difference"]):
        raise ExportError(where, f"logits must be finite {rows}", "NaN or infinite values", "Export without it")
    if entry.precision == "fp32":
        if not measured["max_abs_difference"] <= TOLERANCE or measured["top1_agreement"] != 1.0:
            must = f"max |difference| to the model file must be at most {TOLERANCE:g} with the same first class {rows}"
            got = f"{measured['max_abs_difference']:.3g}, {100 * measured['top1_agreement']:.1f} % agreement"
            raise ExportError(where, must, got, "Export without it, and report the model's architecture")
        return
    drop = measured.get("drop_points", 100 * (1 - measured["top1_agreement"]))
    if drop > max_drop and not np.isclose(drop, max_drop, rtol=0, atol=1e-9):
        lost = "accuracy drop" if "drop_points" in measured else "disagreement with the model file"
        raise ExportError(where, f"{lost} {rows} must be at most {max_drop:g} points", f"{drop:.2f}", fix)


def check_size(sizes: dict[str, int], max_size_mb: float | None) -> None:
    """Raise ExportError where the smallest model file of a bundle, by name [bytes], is over the budget [MB]."""
    name = min(sizes, key=lambda name: sizes[name])
    if max_size_mb is not None and sizes[name] > max_size_mb * 1e6:
        must = f"the smallest model file must have at most {max_size_mb:g} MB"
        fix = "Raise --max-size, add --int8 auto, or choose a smaller backbone"
        raise ExportError(f"size gate, {name}", must, f"{sizes[name] / 1e6:.3f}", fix)


def _said(entry: VariantEntry, share: float) -> str:
    measured = entry.measured
    text = f"{entry.precision}, {100 * share:.1f} % of the size, max |difference| {measured['max_abs_difference']:.2e}"
    text += f", top-1 agreement {100 * measured['top1_agreement']:.1f} %"
    if "accuracy" in measured:
        text += f", accuracy {100 * measured['accuracy_fp32']:.1f} -> {100 * measured['accuracy']:.1f} %"
    return text
