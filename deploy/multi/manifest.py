"""manifest.json of a bundle with many adapters: the shared input, and for each task its file, classes and scores."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploy.bundle_files import FileEntry
from deploy.layout import Check, InputEntry, VariantEntry, listed, load_layout, read_values, verify_layout
from shared_peft.errors import ConfigError


@dataclass(frozen=True)
class TaskEntry:
    """One task of a bundle.

    Args:
        file: name of its adapter file.
        classes: class names in the order of the logits.
        method: adapter methods, or "head" where the task reads the base itself.
        adapter_version: what the adapter file carries as its own version.
        parity: largest difference to PyTorch and top-1 agreement, trained and randomised adapter weights.
        scores: the run's own test scores.
        details: backbone, method and seed of the run.
    """

    file: str
    classes: tuple[str, ...]
    method: str
    adapter_version: int
    parity: dict[str, float]
    scores: dict[str, Any]
    details: dict[str, Any]


@dataclass(frozen=True)
class MultiManifest:
    """Everything needed to feed one base and to name the answers of every task.

    Args:
        schema_version: version of this layout, as of bundles with one task.
        kind: package that trained the tasks.
        target: format of the model file.
        model_file: name of the base graph.
        base_sha256: of the frozen base's tensors; the graph's metadata and every adapter carry it, too.
        input: name, shape and type of the input; the batch comes first and is free.
        output_name: name of the logits, shape (batch, classes of the active task).
        preprocessing: what must happen to raw data first, the same for every task.
        opset: ONNX operator set version.
        nodes: nodes in the graph.
        tasks: by name.
        variants: further files of the base, by name; every adapter file fits them, too.
        versions: packages that exported it.
        files: SHA-256 and size of every other file but SHA256SUMS.
    """

    schema_version: int
    kind: str
    target: str
    model_file: str
    base_sha256: str
    input: InputEntry
    output_name: str
    preprocessing: dict[str, Any]
    opset: int
    nodes: int
    tasks: dict[str, TaskEntry]
    variants: dict[str, VariantEntry]
    versions: dict[str, str]
    files: dict[str, FileEntry]


def holds_tasks(bundle: Path) -> bool:
    """Tell whether a folder is a bundle with many adapters; the files are not checked."""
    try:
        values = read_values(bundle)
    except ConfigError:
        return False
    return isinstance(values, dict) and "tasks" in values


def load_multi(bundle: Path) -> MultiManifest:
    """Read manifest.json and check every field; `verify_multi` checks the files as well."""
    return load_layout(bundle, MultiManifest, _checks)


def verify_multi(bundle: Path) -> MultiManifest:
    """Check names, sizes and hashes of every file of a bundle with many adapters.

    Args:
        bundle: the bundle's folder.

    Returns:
        Its manifest.

    Raises:
        BundleError: a file is missing, changed, cut off, a link, or outside the folder; a value that cannot be.
    """
    return verify_layout(bundle, MultiManifest, _checks)


def _checks(manifest: MultiManifest) -> list[Check]:
    files, mark = [task.file for task in manifest.tasks.values()], manifest.base_sha256
    return [
        ("tasks", manifest.tasks, "must name at least one task", "none"),
        ("tasks", len(set(files)) == len(files), "each must have an adapter file of its own", ", ".join(files)),
        ("base_sha256", re.fullmatch("[0-9a-f]{64}", mark), "must be a SHA-256", repr(mark[:80])),
        *((f"tasks.{name}", task.classes, "must name a class", "none") for name, task in manifest.tasks.items()),
        *listed(manifest, (*files, *(each.file for each in manifest.variants.values()))),
    ]
