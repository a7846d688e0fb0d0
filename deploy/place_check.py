"""A bundle's golden sample in several places: every file beside PyTorch's logits, and beside this CPU's."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from deploy.bundle_files import BundleError
from deploy.model_files import ModelFile, model_files
from deploy.parity import TOLERANCE
from deploy.place import Engine, PlaceOptions, Reply
from deploy.places import PLACES
from deploy.places.cpu import answer
from deploy.runtime import BundleRunner
from shared_peft.errors import ExportError

FURTHER = 2.0  # ours: a place may be this often as far from PyTorch as this CPU is, which is far for int8 only


@dataclass(frozen=True)
class Checked:
    """One file that passed in one place.

    Args:
        engine: what ran it.
        file: name of the file, and of the task.
        rows: rows compared.
        max_abs_difference: largest difference to PyTorch's logits.
        to_cpu: largest difference to what the same file answers on this CPU.
        top1_agreement: share of rows with PyTorch's first class, in [0, 1].
        milliseconds: median time of one row [ms]; None where it means nothing.
        note: what else is to be said.
    """

    engine: str
    file: str
    rows: int
    max_abs_difference: float
    to_cpu: float
    top1_agreement: float
    milliseconds: float | None
    note: str

    def __str__(self) -> str:
        time = "" if self.milliseconds is None else f", {self.milliseconds:.3g} ms a row"
        return (
            f"{self.engine}, {self.file}: {self.rows} rows, max |difference| {self.max_abs_difference:.2e} to PyTorch, "
            f"{self.to_cpu:.2e} to this CPU, top-1 agreement {100 * self.top1_agreement:.0f} %{time}"
            f"{', ' + self.note if self.note else ''}"
        )


def check_places(
    bundle: Path,
    places: Sequence[str],
    options: PlaceOptions | None = None,
    *,
    report: Callable[[str], None] = lambda line: None,
) -> list[Checked]:
    """Run every file of a bundle in every place; what is missing is reported as skipped, with the reason.

    Args:
        bundle: the bundle's folder.
        places: names in PLACES.
        options: what places outside this process need.
        report: is told each result in one line.

    Returns:
        What ran.

    Raises:
        UnknownNameError: no such place.
        BundleError: the bundle was changed, or answers somewhere are not those PyTorch gave.
        ExportError: a runtime could not run a file; the first failure, once everything has been tried.
    """
    chosen = [PLACES.get(name)() for name in places]
    files = model_files(bundle)
    for variant in dict.fromkeys(file.variant for file in files):
        BundleRunner(bundle, threads=1, variant=variant).check_golden()
    expected = [answer(file) for file in files]
    found: list[Checked] = []
    failures: list[ExportError] = []
    for engine in (engine for place in chosen for engine in place.engines(options or PlaceOptions())):
        if engine.missing:
            report(f"{engine.title}: skipped, {engine.missing}")
            continue
        for file, own in zip(files, expected, strict=True):
            if refusal := engine.refusal(file):
                report(f"{engine.title}, {file.name}: skipped, {refusal}")
                continue
            try:
                reply = own if engine.answer is answer else engine.answer(file)
                found.append(_compare(engine, file, reply, own))
                report(str(found[-1]))
            except ExportError as error:
                failures.append(error)
                report(f"{engine.title}, {file.name}: failed, {error}")
    if failures:
        raise failures[0]
    return found


def _compare(engine: Engine, file: ModelFile, reply: Reply, own: Reply) -> Checked:
    logits = file.sample.logits
    where = f"{file.bundle}, {file.name}, {engine.title}"
    fix = "Run it with another runtime, or export again"
    if reply.logits.shape != logits.shape:
        raise BundleError(where, f"logits must have shape {logits.shape}", reply.logits.shape, fix)
    here, difference = (float(np.abs(found - logits).max()) for found in (own.logits, reply.logits))
    allowed = TOLERANCE + FURTHER * here + engine.leeway * float(np.abs(logits).max())
    if not difference <= allowed:
        raise BundleError(where, f"logits must be within {allowed:.3g} of PyTorch's", f"{difference:.3g}", fix)
    agreement = float((reply.logits.argmax(-1) == logits.argmax(-1)).mean())
    to_cpu = float(np.abs(reply.logits - own.logits).max())
    return Checked(engine.title, file.name, len(logits), difference, to_cpu, agreement, reply.milliseconds, reply.note)
