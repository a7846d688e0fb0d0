"""The phone's part of the demo: every run as a bundle, and of two of them what an 8-bit file saves and costs here."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from deploy.bench import BenchOptions, FileBench, bench
from deploy.bundle import export_model
from deploy.demo.report import Chapter
from deploy.demo.tables import Table
from deploy.manifest import Manifest
from deploy.runs import load_trained
from deploy.variants import VariantOptions
from shared_peft.progress import Bar
from shared_peft.training import LabelledRows

Validation = Callable[[], LabelledRows]
WITH_INT8 = VariantOptions(int8="auto", max_drop=100)  # a demo shows the loss instead of refusing it
ROUNDS = 40
_EXPORT_NOTE = (
    "The adapted PyTorch model against the ONNX file of the merged one, in onnxruntime at batch 1, 4 and 7, on "
    "real inputs and once more with randomised weights; nodes in its graph beside the unadapted network's."
)
_BENCH_NOTE = (
    "`deploy export --int8 auto` and `deploy bench`: accuracy on labelled rows the run did not train on, the median of "
    "one row on one thread of this machine, time to load, and the parts that CoreML would cut the graph into. "
    "Networks as small as these gain size, not time: starting an operator costs what it computes."
)


def run_phone(runs: list[Path], measured: Mapping[Path, Validation | None], out: Path) -> Chapter:
    """Export every run, and measure the files of some.

    Args:
        runs: finished runs.
        measured: those that get an int8 file and are benched, with their labelled rows; None takes the run's own.
        out: folder for the bundles.
    """
    rows, manifests = [], {}
    for run in Bar(runs, desc="export", unit="model"):
        trained, options = load_trained(run), None
        if run in measured:
            trained, options = replace(trained, validation=measured[run] or trained.validation), WITH_INT8
        manifest = export_model(trained, out / run.name, variants=options, secrets=(run.absolute(),))
        manifests[run.name] = manifest
        rows.append(_exported(run.name, manifest))
    columns = ("run", "size [kB]", "nodes", "more than base", "max |difference|", "same answer")
    benched = [
        _benched(run.name, manifests[run.name], each)
        for run in Bar(list(measured), desc="bench", unit="model")
        for each in bench(out / run.name, BenchOptions(rounds=ROUNDS))
    ]
    heads = ("run, kind of file", "size [kB]", "of fp32", "accuracy", "one row [ms]", "load [ms]", "CoreML parts")
    text = "Every model above as a bundle: one ONNX file, a manifest, a golden sample, and the gates it passed."
    tables = (
        Table("Exported bundles", columns, rows, _EXPORT_NOTE),
        Table("An 8-bit file beside the whole one", heads, benched, _BENCH_NOTE),
    )
    return Chapter("On the phone", text, tables)


def _exported(name: str, manifest: Manifest) -> tuple[str, ...]:
    size, parity = manifest.files[manifest.model_file].size_bytes, manifest.parity
    difference = max(parity["max_abs_difference_trained"], parity["max_abs_difference_randomised"])
    nodes, added = f"{manifest.nodes}", f"{parity['nodes_more_than_base']:.0f}"
    agreement = f"{100 * parity['top1_agreement']:.0f} %"
    return name, f"{size / 1e3:.0f}", nodes, added, f"{difference:.1e}", agreement


def _benched(name: str, manifest: Manifest, row: FileBench) -> tuple[str, ...]:
    kinds = {each.file: kind for kind, each in manifest.variants.items()}
    kind = kinds.get(row.file, "fp32")
    measured = manifest.variants[kind].measured if kind in manifest.variants else {}
    accuracy = measured.get("accuracy", manifest.variants["int8"].measured["accuracy_fp32"])
    share = 1e8 * row.size_mb / manifest.files[manifest.model_file].size_bytes
    parts = row.coverage.get("CoreML MLProgram")
    return (
        f"{name}, {kind}",
        f"{1e3 * row.size_mb:.0f}",
        f"{share:.0f} %",
        f"{accuracy:.3f}",
        f"{row.latency[0].median_ms:.3f}",
        f"{row.probe.load_ms:.1f}",
        "-" if parts is None else f"{parts.partitions}",
    )
