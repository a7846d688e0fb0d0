"""manifest.json: what a bundle holds and how it is fed; reading it back refuses whatever does not fit."""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

from shared_peft.atomic import sha256_of, write_json, write_text
from shared_peft.config import from_json, loads_json, to_json
from shared_peft.errors import ConfigError, ExportError

SCHEMA_VERSION = 2
MANIFEST, SUMS = "manifest.json", "SHA256SUMS"
CARD, GOLDEN, PARITY = "README.md", "golden.safetensors", "parity.json"
_PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_SUM_LINE = re.compile(r"([0-9a-f]{64}) [ *](.+)")
_LARGEST_TEXT = 16 << 20
_FIX = "Export it again, or fetch the bundle again"

Precision = Literal["fp32", "fp16", "int8"]
Runtime = Literal["onnxruntime", "ort"]

Check = tuple[str, object, str, object]
"""One thing that must hold of a manifest: the field, what is true where it holds, what must be, what came."""


class BundleError(ExportError):
    """A bundle that is incomplete, was changed, or cannot be trusted."""


@dataclass(frozen=True)
class FileEntry:
    """One file: its SHA-256 in hexadecimal and its size [bytes]."""

    sha256: str
    size_bytes: int


@dataclass(frozen=True)
class InputEntry:
    """The model's one input.

    Args:
        name: its name in the graph.
        shape: its shape without the batch.
        dtype: its type.
        free_axes: axes of ``shape`` that may have another size, such as an image's height and width.
    """

    name: str
    shape: tuple[int, ...]
    dtype: Literal["float32", "uint8"] = "float32"
    free_axes: tuple[int, ...] = ()

    @property
    def words(self) -> str:
        """The shape with its batch, for people."""
        sizes = ("any" if axis in self.free_axes else str(size) for axis, size in enumerate(self.shape))
        return f"(batch, {', '.join(sizes)})"

    def fits(self, shape: Sequence[object]) -> bool:
        """Return whether a shape without its batch is this one but for the free axes."""
        return len(shape) == len(self.shape) and all(
            axis in self.free_axes or found == size
            for axis, (found, size) in enumerate(zip(shape, self.shape, strict=True))
        )


@dataclass(frozen=True)
class VariantEntry:
    """A further model file, made from the model file.

    Args:
        file: its name.
        precision: of its weights.
        batch: rows it takes at once; 0 for any number.
        runtime: what runs it: any onnxruntime, or one for .ort files.
        measured: beside the model file: rows, max_abs_difference, top1_agreement; on validation data also
            accuracy_fp32, accuracy and drop_points.
    """

    file: str
    precision: Precision
    batch: int
    runtime: Runtime
    measured: dict[str, float]


@dataclass(frozen=True)
class Manifest:
    """Everything needed to feed the model and to name its answers.

    Args:
        schema_version: version of this layout.
        kind: package that trained the model, "vision" or "imu_saga".
        task: what the output means.
        target: export target that wrote the model file.
        model_file: name of the model file: fp32, any batch.
        variants: further model files, by name.
        input: name, shape and type of the input; the batch comes first and is free.
        output_name: name of the logits, shape (batch, classes).
        classes: class names in the order of the logits.
        preprocessing: what must happen to raw data first: image size or rate, channel order, units, normalisation.
        opset: ONNX operator set version.
        nodes: nodes in the model's graph.
        parity: largest difference to PyTorch and top-1 agreement, trained and randomised weights.
        scores: the run's own test scores.
        details: backbone, method and seed of the run.
        versions: packages that trained and exported it.
        files: SHA-256 and size of every other file but SHA256SUMS.
    """

    schema_version: int
    kind: str
    task: Literal["classification"]
    target: str
    model_file: str
    variants: dict[str, VariantEntry]
    input: InputEntry
    output_name: str
    classes: tuple[str, ...]
    preprocessing: dict[str, Any]
    opset: int
    nodes: int
    parity: dict[str, float]
    scores: dict[str, Any]
    details: dict[str, Any]
    versions: dict[str, str]
    files: dict[str, FileEntry]


def describe_files(folder: Path) -> dict[str, FileEntry]:
    """Return hash and size of every file in ``folder``, by name."""
    return {path.name: FileEntry(sha256_of(path), path.stat().st_size) for path in sorted(folder.iterdir())}


class Described(Protocol):
    """What every layout of a manifest holds; those of one task and of many are dataclasses of their own."""

    @property
    def model_file(self) -> str:
        """Name of the model file."""
        ...

    @property
    def input(self) -> InputEntry:
        """The model's one input."""
        ...

    @property
    def nodes(self) -> int:
        """Nodes in the model's graph."""
        ...

    @property
    def files(self) -> dict[str, FileEntry]:
        """SHA-256 and size of every other file but SHA256SUMS."""
        ...


Layout = TypeVar("Layout", bound=Described)


def write_manifest(folder: Path, manifest: Described) -> None:
    """Write manifest.json and SHA256SUMS, which covers it too (`sha256sum -c SHA256SUMS` reads it)."""
    write_json(folder / MANIFEST, to_json(manifest))
    sums = {name: entry.sha256 for name, entry in manifest.files.items()} | {MANIFEST: sha256_of(folder / MANIFEST)}
    write_text(folder / SUMS, "".join(f"{digest}  {name}\n" for name, digest in sorted(sums.items())))


def load_manifest(bundle: Path) -> Manifest:
    """Read manifest.json and check every field; `verify_bundle` checks the files as well.

    Args:
        bundle: the bundle's folder.

    Raises:
        BundleError: no bundle there, another schema version, an unknown key, or a value that cannot be.
    """
    return load_layout(bundle, Manifest, _checks)


def verify_bundle(bundle: Path) -> Manifest:
    """Check names, sizes and hashes of every file of a bundle.

    Args:
        bundle: the bundle's folder.

    Returns:
        Its manifest.

    Raises:
        BundleError: a file is missing, changed, cut off, a link, or outside the folder.
    """
    return verify_layout(bundle, Manifest, _checks)


def verify_layout(bundle: Path, layout: type[Layout], checks: Callable[[Layout], Iterable[Check]]) -> Layout:
    """Check names, sizes and hashes of every file of a bundle whose manifest has the given layout.

    Args:
        bundle: the bundle's folder.
        layout: the manifest's dataclass.
        checks: what must hold of it beside what must hold of every layout.

    Returns:
        Its manifest.

    Raises:
        BundleError: a file is missing, changed, cut off, a link, or outside the folder; a value that cannot be.
    """
    sums = _read_sums(bundle)
    if sha256_of(_plain_file(bundle, MANIFEST)) != sums.get(MANIFEST):
        raise BundleError(bundle / MANIFEST, f"must have the hash that {SUMS} lists", "another", _FIX)
    manifest = load_layout(bundle, layout, checks)
    hashes = {name: entry.sha256 for name, entry in manifest.files.items()} | {MANIFEST: sums[MANIFEST]}
    if hashes != sums:
        odd = ", ".join(sorted(name for name in hashes.keys() | sums.keys() if hashes.get(name) != sums.get(name)))
        raise BundleError(bundle / SUMS, f"must list the hashes that {MANIFEST} lists", f"others for {odd}", _FIX)
    for name, entry in manifest.files.items():
        path = _plain_file(bundle, name)
        if path.stat().st_size != entry.size_bytes:
            raise BundleError(path, f"must have {entry.size_bytes} bytes", path.stat().st_size, _FIX)
        if (digest := sha256_of(path)) != entry.sha256:
            raise BundleError(path, f"must have SHA-256 {entry.sha256[:12]}...", f"{digest[:12]}...", _FIX)
    return manifest


def read_values(bundle: Path) -> Any:
    """Return what manifest.json holds as plain JSON values, nothing checked.

    Raises:
        BundleError: no file there, a link, one that is too large, or no text.
        ConfigError: text that is no JSON.
    """
    path = bundle / MANIFEST
    return loads_json(_text(path), str(path))


def load_layout(bundle: Path, layout: type[Layout], checks: Callable[[Layout], Iterable[Check]]) -> Layout:
    """Read manifest.json in the given layout and check every field; `verify_layout` checks the files as well.

    Raises:
        BundleError: no bundle there, another schema version, an unknown key, or a value that cannot be.
    """
    path = bundle / MANIFEST
    try:
        values = read_values(bundle)
        if not isinstance(values, dict) or values.get("schema_version") != SCHEMA_VERSION:
            got = values.get("schema_version") if isinstance(values, dict) else type(values).__name__
            raise BundleError(path, f"schema_version must be {SCHEMA_VERSION}", got, "Use the version that wrote it")
        manifest = from_json(layout, values, str(path))
    except ConfigError as error:
        raise BundleError(error.where, error.must, error.got, _FIX) from error
    for field, holds, must, got in (*_checks_of_all(manifest), *checks(manifest)):
        if not holds:
            raise BundleError(f"{path}.{field}", must, got, _FIX)
    return manifest


def listed(manifest: Described, names: Iterable[str]) -> list[Check]:
    """Return the checks that a manifest lists these files."""
    found = ", ".join(manifest.files) or "nothing"
    return [("files", name in manifest.files, f"must list {name}", found) for name in names]


def _axes_of(entry: InputEntry) -> bool:
    axes = entry.free_axes
    return len(set(axes)) == len(axes) and all(0 <= axis < len(entry.shape) for axis in axes)


def _checks_of_all(manifest: Described) -> list[Check]:
    return [
        ("input.shape", all(n > 0 for n in manifest.input.shape), "sizes must be positive", manifest.input.shape),
        ("input.free_axes", _axes_of(manifest.input), "must be axes of the shape, each once", manifest.input.free_axes),
        ("nodes", manifest.nodes > 0, "must be positive", manifest.nodes),
        *listed(manifest, (manifest.model_file, CARD, GOLDEN, PARITY)),
        *(
            (f"files.{name}", _PLAIN_NAME.fullmatch(name), "must be a plain file name", repr(name))
            for name in manifest.files
        ),
    ]


def _checks(manifest: Manifest) -> list[Check]:
    return [
        ("classes", manifest.classes, "must name at least one class", manifest.classes),
        *listed(manifest, (variant.file for variant in manifest.variants.values())),
        *(
            (f"variants.{name}.batch", variant.batch >= 0, "must be 0 or more", variant.batch)
            for name, variant in manifest.variants.items()
        ),
    ]


def _read_sums(bundle: Path) -> dict[str, str]:
    path = _plain_file(bundle, SUMS)
    sums: dict[str, str] = {}
    for number, line in enumerate(_text(path).splitlines(), 1):
        match = _SUM_LINE.fullmatch(line)
        if match is None or not _PLAIN_NAME.fullmatch(match[2]) or match[2] in sums:
            must = "must be a SHA-256, two spaces and a plain file name, each name once"
            raise BundleError(f"{path}, line {number}", must, repr(line[:120]), _FIX)
        sums[match[2]] = match[1]
    return sums


def _plain_file(bundle: Path, name: str) -> Path:
    path = bundle / name
    if path.is_symlink() or not path.is_file():
        got = "a link" if path.is_symlink() else "no such file"
        raise BundleError(path, "must be a file in the bundle's folder", got, _FIX)
    return path


def _text(path: Path) -> str:
    _plain_file(path.parent, path.name)
    if path.stat().st_size > _LARGEST_TEXT:
        raise BundleError(path, f"must be under {_LARGEST_TEXT} bytes", path.stat().st_size, _FIX)
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise BundleError(path, "must be UTF-8 text", str(error), _FIX) from error
