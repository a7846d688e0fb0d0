"""README.md of a bundle: the model card, written from the manifest."""

from collections.abc import Mapping, Sequence
from typing import Any

from deploy.bundle_files import GOLDEN, MANIFEST, PARITY, SUMS
from deploy.layout import VariantEntry
from deploy.manifest import Manifest
from deploy.snippets import SNIPPETS

_VARIANT_COLUMNS = {
    "file": "",
    "variant": "",
    "weights": "",
    "batch": "",
    "MB": "",
    "% of fp32": "",
    "max difference": "max_abs_difference",
    "top-1 agreement": "top1_agreement",
    "accuracy fp32": "accuracy_fp32",
    "accuracy": "accuracy",
    "points lost": "drop_points",
    "rows": "rows",
}
_RUN = """\
```python
from pathlib import Path
from deploy import BundleRunner

runner = BundleRunner(Path("."))
for answer in runner.predict(inputs):  # float32, shape {shape}
    answer.label, answer.probability
```
"""


def model_card(manifest: Manifest, unmerged: Sequence[str] = ()) -> str:
    """Return the model card of a bundle as Markdown.

    Args:
        manifest: the bundle's manifest; of its files only the models need be described.
        unmerged: names of adapter methods that run beside the weights.
    """
    shape = manifest.input.words
    backbone = manifest.details.get("backbone") or manifest.details.get("encoder") or manifest.kind
    method = manifest.details.get("method")
    merged = "" if unmerged else " and merged"
    title = f"# {backbone}" + (f", adapted with {method}{merged}" if method else "")
    adapted = "The adapter is merged into the weights: the graph is the base model's, node for node."
    if unmerged:
        extra = f"{manifest.parity['nodes_more_than_base']:.0f} nodes more than the base model's graph"
        adapted = f"The adapter cannot be merged ({', '.join(unmerged)}) and runs beside the weights: {extra}."
    sections = [
        f"{title}\n\nClassification into {len(manifest.classes)} classes. {adapted}",
        section("Classes", ", ".join(f"`{name}`" for name in manifest.classes)),
        section(
            "Input and output",
            f"Input `{manifest.input.name}`, {manifest.input.dtype}, {shape}; any batch of 1 or more.\n"
            f"Output `{manifest.output_name}`, float32, (batch, {len(manifest.classes)}): logits in class order.",
        ),
        section("Preprocessing", table(manifest.preprocessing, ("step", "value"))),
        section("Scores of the run", table(plain_values(manifest.scores), ("score", "value"))),
        *_confusion(manifest),
        section("Parity with PyTorch", table(manifest.parity, ("measure", "value"))),
        *_variants(manifest),
        section("How it was trained", table(plain_values(manifest.details), ("detail", "value"))),
        section("Files", _files(manifest)),
        section("Run it", _RUN.format(shape=shape)),
        section("Versions", table(manifest.versions, ("package", "version"))),
    ]
    return "\n\n".join(sections).rstrip() + "\n"


def section(title: str, body: str) -> str:
    """Return a section of a card as Markdown."""
    return f"## {title}\n\n{body.rstrip() or 'Not recorded.'}"


def plain_values(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entries that fit a cell: numbers and words; the manifest holds the rest."""
    return {name: value for name, value in values.items() if isinstance(value, (str, int, float))}


def _variants(manifest: Manifest) -> list[str]:
    """Return the section that shows every model file: its size, and what it answers beside the first."""
    if not manifest.variants:
        return []
    first = VariantEntry(manifest.model_file, "fp32", 0, "onnxruntime", {})
    whole = manifest.files[manifest.model_file].size_bytes
    lines = [f"| {' | '.join(_VARIANT_COLUMNS)} |\n|{'---|' * len(_VARIANT_COLUMNS)}"]
    for name, variant in {"": first, **manifest.variants}.items():
        size, measured = manifest.files[variant.file].size_bytes, variant.measured
        scores = [f"{measured[key]:.4g}" if key in measured else "" for key in _VARIANT_COLUMNS.values() if key]
        cells = [variant.file, name, variant.precision, variant.batch or "any", f"{size / 1e6:.3f}"]
        lines.append(f"| {' | '.join(map(str, [*cells, f'{100 * size / whole:.1f}', *scores]))} |")
    note = (
        "Measured beside the first file: on the run's validation data where there is an accuracy, else on its examples."
    )
    return [section("Model files", "\n".join(lines) + f"\n\n{note}")]


def _confusion(manifest: Manifest) -> list[str]:
    """Return the section of the confusion matrix, where the run recorded one."""
    rows = manifest.scores.get("confusion")
    if not isinstance(rows, list) or len(rows) != len(manifest.classes):
        return []
    head = f"| true \\\\ answer | {' | '.join(map(_cell, manifest.classes))} |\n|{'---|' * (len(rows) + 1)}"
    lines = [f"| {_cell(name)} | {_cell_row(row)} |" for name, row in zip(manifest.classes, rows, strict=True)]
    return [section("Confusion matrix", "\n".join([head, *lines]))]


def _cell_row(row: Any) -> str:
    return " | ".join(map(_cell, row if isinstance(row, list) else [row]))


def _files(manifest: Manifest) -> str:
    roles = {
        manifest.model_file: f"the model, {manifest.nodes} nodes, opset {manifest.opset}",
        **{variant.file: f"the same, see variant {name}" for name, variant in manifest.variants.items()},
        **{snippet.file_name: f"how {name} feeds it" for name, snippet in SNIPPETS.items()},
        MANIFEST: "all of this for programs",
        GOLDEN: "inputs and the logits expected",
        PARITY: "the whole parity report",
        SUMS: "hashes: `sha256sum -c SHA256SUMS`",
    }
    return table(roles, ("file", "holds"))


def table(values: Mapping[str, Any], head: tuple[str, str]) -> str:
    """Return values by name as a Markdown table; "" for none."""
    if not values:
        return ""
    rows = [f"| {name} | {_cell(value)} |" for name, value in values.items()]
    return "\n".join([f"| {head[0]} | {head[1]} |", "|---|---|", *rows])


def _cell(value: Any) -> str:
    if isinstance(value, Mapping):
        text = ", ".join(f"{key} {_cell(item)}" for key, item in value.items())
    elif isinstance(value, (list, tuple)):
        text = ", ".join(map(_cell, value))
    else:
        text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return text.replace("|", "\\|").replace("\n", " ")
