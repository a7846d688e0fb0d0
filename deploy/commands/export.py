"""`python -m deploy export RUN --out BUNDLE`: merge, export, measure, write a bundle."""

from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from deploy.bundle import DEFAULT_OPSET, export_model
from deploy.commands.say import say
from deploy.runs import load_trained
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


def export(config: ExportConfig) -> None:
    """Export a run and say what was written."""
    trained = load_trained(config.run)
    secrets = (config.run.absolute(),)
    manifest = export_model(trained, config.out, target=config.target, opset=config.opset, secrets=secrets, report=say)
    size = manifest.files[manifest.model_file].size_bytes
    say(f"{config.out}: {len(manifest.classes)} classes, {size / 1e6:.2f} MB, all gates passed")


COMMAND = Command(
    "export",
    ExportConfig,
    export,
    "Merge a run's adapter, export it, pass the gates, write a bundle.",
    "python -m deploy export runs/finetune --out runs/bundle",
    place=10,
)
