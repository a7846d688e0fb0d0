"""manifest.json of a bundle of one task: what it holds and how it is fed."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from deploy.bundle_files import FileEntry
from deploy.layout import Check, InputEntry, VariantEntry, listed, load_layout, verify_layout


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


def _checks(manifest: Manifest) -> list[Check]:
    return [
        ("classes", manifest.classes, "must name at least one class", manifest.classes),
        *listed(manifest, (variant.file for variant in manifest.variants.values())),
        *(
            (f"variants.{name}.batch", variant.batch >= 0, "must be 0 or more", variant.batch)
            for name, variant in manifest.variants.items()
        ),
    ]
