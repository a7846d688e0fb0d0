"""Further files of a bundle, each made from its finished model file: fixed batch, int8, half precision, .ort."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from deploy.layout import Precision, Runtime
from deploy.quantise import Int8
from deploy.rows import MeasuredRows
from shared_peft.errors import ConfigError
from shared_peft.registry import Registry


@dataclass(frozen=True)
class VariantOptions:
    """Which files a bundle gets beside its model file, and what they must keep to.

    Args:
        int8: "none"; "auto" chooses by where the weights stand; or the kind itself.
        fp16: a file stored in half precision.
        fixed: a file with a fixed batch of 1, as accelerators want.
        ort: a file in onnxruntime's own format, for ARM.
        max_size_mb: largest size of the smallest model file [MB]; None for any.
        max_drop: largest loss of accuracy on validation data [percentage points].
    """

    int8: Int8 | Literal["auto", "none"] = "none"
    fp16: bool = False
    fixed: bool = True
    ort: bool = False
    max_size_mb: float | None = None
    max_drop: float = 1.0

    def __post_init__(self) -> None:
        if self.max_size_mb is not None and not self.max_size_mb > 0:
            raise ConfigError("--max-size", "must be positive", self.max_size_mb, "Give megabytes")
        if not 0 <= self.max_drop <= 100:
            raise ConfigError("--max-drop", "must be in [0, 100] points", self.max_drop, "Use 1")


@dataclass(frozen=True)
class Material:
    """What a variant is made from.

    Args:
        folder: the bundle's folder, with the model file and the variants made before.
        model: the model file.
        twin: the same model exported with random weights; its constants that are equal are no weights.
        rows: what answers are measured on.
        options: what was asked for.
    """

    folder: Path
    model: Path
    twin: Path
    rows: MeasuredRows
    options: VariantOptions


class Variant(ABC):
    """One kind of further file.

    Each is one file of `deploy.variants` whose class registers itself; export, check, bench and the tests iterate the
    registry. They are made in the order of ``place``.
    """

    file_name: str
    precision: Precision
    batch: int = 0
    runtime: Runtime = "onnxruntime"
    place: int = 50

    @abstractmethod
    def wanted(self, options: VariantOptions) -> bool:
        """Return whether the options ask for it."""

    @abstractmethod
    def write(self, material: Material, path: Path) -> Precision:
        """Write it to ``path`` and return the precision its weights have.

        Raises:
            ExportError: the model cannot be written this way.
        """


VARIANTS = Registry[type[Variant]]("variant")


def wanted_variants(options: VariantOptions) -> list[tuple[str, Variant]]:
    """Return names and variants that the options ask for, in the order they are made."""
    made = [(name, kind()) for name, kind in VARIANTS.items()]
    return sorted((pair for pair in made if pair[1].wanted(options)), key=lambda pair: pair[1].place)
