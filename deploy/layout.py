"""What every manifest.json holds, of one task or of many, and how one is written, read and checked."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

from deploy.bundle_files import (
    CARD,
    FIX,
    GOLDEN,
    MANIFEST,
    PARITY,
    BundleError,
    FileEntry,
    check_files,
    check_manifest_sum,
    is_plain_name,
    read_sums,
    read_text,
    write_sums,
)
from shared_peft.atomic import write_json
from shared_peft.config import from_json, loads_json, to_json
from shared_peft.errors import ConfigError

SCHEMA_VERSION = 2

Precision = Literal["fp32", "fp16", "int8"]
Runtime = Literal["onnxruntime", "ort"]

Check = tuple[str, object, str, object]
"""One thing that must hold of a manifest: the field, what is true where it holds, what must be, what came."""


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
    """Write manifest.json, and SHA256SUMS, which covers it too."""
    write_json(folder / MANIFEST, to_json(manifest))
    write_sums(folder, manifest.files)


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
    sums = read_sums(bundle)
    check_manifest_sum(bundle, sums)
    manifest = load_layout(bundle, layout, checks)
    check_files(bundle, manifest.files, sums)
    return manifest


def read_values(bundle: Path) -> Any:
    """Return what manifest.json holds as plain JSON values, nothing checked.

    Raises:
        BundleError: no file there, a link, one that is too large, or no text.
        ConfigError: text that is no JSON.
    """
    path = bundle / MANIFEST
    return loads_json(read_text(path), str(path))


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
        raise BundleError(error.where, error.must, error.got, FIX) from error
    for field, holds, must, got in (*_checks_of_all(manifest), *checks(manifest)):
        if not holds:
            raise BundleError(f"{path}.{field}", must, got, FIX)
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
        *((f"files.{name}", is_plain_name(name), "must be a plain file name", repr(name)) for name in manifest.files),
    ]
