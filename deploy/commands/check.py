"""`python -m deploy check BUNDLE --on cpu,wasm`: verify hashes, run the golden samples, here and elsewhere."""

from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from deploy.commands.say import say
from deploy.place import PlaceOptions
from deploy.place_check import check_places
from shared_peft.command import Command


@dataclass(frozen=True)
class CheckConfig:
    """Options of `check`."""

    bundle: Positional[Path]
    """Folder of a bundle."""
    on: str = "cpu"
    """Where to run it, separated by commas: cpu, wasm (node and a browser), arm64 (emulated), qnn (emulated)."""
    runtime: Path | None = None
    """Folder of an installed onnxruntime-web, for wasm; none fetches it with npm."""
    arm64_root: Path | None = None
    """Root of an aarch64 system with Python, for arm64; none reads $SAGA_PEFT_ARM64_ROOT."""


def check(config: CheckConfig) -> None:
    """Verify a bundle's files and run its golden sample."""
    places = [name.strip() for name in config.on.split(",")]
    found = check_places(config.bundle, places, PlaceOptions(config.runtime, config.arm64_root), report=say)
    say(f"{config.bundle}: sizes and hashes as listed, {len(found)} golden samples as PyTorch gave them")


COMMAND = Command(
    "check",
    CheckConfig,
    check,
    "Verify a bundle's hashes and run its golden sample here, in a browser, on an emulated phone.",
    "python -m deploy check runs/bundle --on cpu,wasm",
    place=20,
)
