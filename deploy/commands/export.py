"""`python -m deploy export RUN --out BUNDLE`: merge, export, measure, write a bundle."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tyro.conf import Positional

from deploy.bundle import DEFAULT_OPSET, export_model
from deploy.commands.say import say
from deploy.preprocess import in_graph
from deploy.runs import load_trained
from deploy.variants import VariantOptions
from shared_peft.command import Command


@dataclass(frozen=True)
class ExportConfig:
    """Options of `export`."""

    run: Positional[Path]
    """Folder of a fine-tuning run of vision or imu_saga."""
    out: Path
    """Folder of the bundle to write; must not exist."""
    target: str = "onnx"
    """File format of the model."""
    opset: int = DEFAULT_OPSET
    """ONNX operator set version; 18 to 20 is what phones know."""
    preprocess: Literal["in-graph", "none"] = "none"
    """in-graph: the model takes raw pixels, or samples in the sensor's units, and prepares them itself."""
    units: tuple[str, ...] = ()
    """With --preprocess in-graph, units of motion sensors: acc=g gyro=deg/s; those not named are fed in SI units."""
    int8: Literal["auto", "dynamic", "static", "none"] = "none"
    """A file of a quarter of the size: dynamic for linear and attention nets, static for ConvNets, auto chooses. It is
    measured on the run's validation data, which must be where it was when the run was made."""
    fp16: bool = False
    """A file of half the size."""
    fixed: bool = True
    """A file with a fixed batch of 1, for accelerators."""
    ort: bool = False
    """A file in onnxruntime's own format, for ARM: of the int8 file where there is one."""
    max_size: float | None = None
    """Largest size of the smallest model file [MB]."""
    max_drop: float = 1.0
    """Largest loss of accuracy of the int8 file on validation data [percentage points]."""


def export(config: ExportConfig) -> None:
    """Export a run and say what was written."""
    trained = load_trained(config.run)
    if config.preprocess == "in-graph":
        trained = in_graph(trained, config.units)
    secrets = (config.run.absolute(),)
    manifest = export_model(
        trained,
        config.out,
        target=config.target,
        opset=config.opset,
        variants=variant_options(config),
        secrets=secrets,
        report=say,
    )
    files = [manifest.model_file, *(variant.file for variant in manifest.variants.values())]
    sizes = ", ".join(f"{name} {manifest.files[name].size_bytes / 1e6:.2f} MB" for name in files)
    say(f"{config.out}: {len(manifest.classes)} classes, {sizes}, all gates passed")


def variant_options(config: ExportConfig) -> VariantOptions:
    """Return which further files are asked for."""
    return VariantOptions(config.int8, config.fp16, config.fixed, config.ort, config.max_size, config.max_drop)


COMMAND = Command(
    "export",
    ExportConfig,
    export,
    "Merge a run's adapter, export it, pass the gates, write a bundle.",
    "python -m deploy export runs/finetune --out runs/bundle",
    place=10,
)
