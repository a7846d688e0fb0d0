"""manifest.json of a bundle with many adapters: the shared input, and for each task its file, classes and scores."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploy import manifest as single
from deploy.manifest import CARD, GOLDEN, MANIFEST, PARITY, SCHEMA_VERSION, BundleError, FileEntry, InputEntry
from shared_peft.atomic import sha256_of
from shared_peft.config import from_json, loads_json
from shared_peft.errors import ConfigError

_FIX = "Export the tasks again, or fetch the bundle again"


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
    versions: dict[str, str]
    files: dict[str, FileEntry]


def holds_tasks(bundle: Path) -> bool:
    """Tell whether a folder is a bundle with many adapters; the files are not checked."""
    try:
        values = loads_json(single._text(bundle / MANIFEST), str(bundle / MANIFEST))
    except ConfigError:
        return False
    return isinstance(values, dict) and "tasks" in values


def verify_multi(bundle: Path) -> MultiManifest:
    """Check names, sizes and hashes of every file of a bundle with many adapters.

    Args:
        bundle: the bundle's folder.

    Returns:
        Its manifest.

    Raises:
        BundleError: a file is missing, changed, cut off, a link, or outside the folder; a value that cannot be.
    """
    path, sums = bundle / MANIFEST, single._read_sums(bundle)
    if sha256_of(single._plain_file(bundle, MANIFEST)) != sums.get(MANIFEST):
        raise BundleError(path, f"must have the hash that {single.SUMS} lists", "another", _FIX)
    manifest = _read(path)
    listed = {name: entry.sha256 for name, entry in manifest.files.items()} | {MANIFEST: sums[MANIFEST]}
    if listed != sums:
        odd = ", ".join(sorted(name for name in listed.keys() | sums.keys() if listed.get(name) != sums.get(name)))
        raise BundleError(bundle / single.SUMS, f"must list the hashes of {MANIFEST}", f"others for {odd}", _FIX)
    for name, entry in manifest.files.items():
        file = single._plain_file(bundle, name)
        found = FileEntry(sha256_of(file), file.stat().st_size)
        if found != entry:
            must = f"must have {entry.size_bytes} bytes and SHA-256 {entry.sha256[:12]}..."
            raise BundleError(file, must, f"{found.size_bytes} and {found.sha256[:12]}...", _FIX)
    return manifest


def _read(path: Path) -> MultiManifest:
    try:
        values = loads_json(single._text(path), str(path))
        if not isinstance(values, dict) or values.get("schema_version") != SCHEMA_VERSION:
            got = values.get("schema_version") if isinstance(values, dict) else type(values).__name__
            raise BundleError(path, f"schema_version must be {SCHEMA_VERSION}", got, "Use the version that wrote it")
        manifest = from_json(MultiManifest, values, str(path))
    except ConfigError as error:
        raise BundleError(error.where, error.must, error.got, _FIX) from error
    _check(path, manifest)
    return manifest


def _check(path: Path, manifest: MultiManifest) -> None:
    files = [task.file for task in manifest.tasks.values()]
    shape, mark = manifest.input.shape, manifest.base_sha256
    checks = [
        ("tasks", bool(manifest.tasks), "must name at least one task", "none"),
        ("tasks", len(set(files)) == len(files), "each must have an adapter file of its own", ", ".join(files)),
        ("input.shape", all(size > 0 for size in shape), "sizes must be positive", shape),
        ("base_sha256", re.fullmatch("[0-9a-f]{64}", mark), "must be a SHA-256", repr(mark[:80])),
    ]
    checks += [(f"tasks.{name}", task.classes, "must name a class", "none") for name, task in manifest.tasks.items()]
    wanted = (manifest.model_file, CARD, GOLDEN, PARITY, *files)
    listed = ", ".join(manifest.files) or "nothing"
    checks += [("files", name in manifest.files, f"must list {name}", listed) for name in wanted]
    checks += [
        (f"files.{name}", single._PLAIN_NAME.fullmatch(name), "must be a plain file name", repr(name))
        for name in manifest.files
    ]
    for field, holds, must, got in checks:
        if not holds:
            raise BundleError(f"{path}.{field}", must, got, _FIX)
