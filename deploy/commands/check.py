"""`python -m deploy check BUNDLE`: verify hashes, run the golden sample."""

from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from deploy.commands.say import say
from deploy.runtime import BundleRunner
from shared_peft.command import Command


@dataclass(frozen=True)
class CheckConfig:
    """Options of `check`."""

    bundle: Positional[Path]
    """Folder of a bundle."""


def check(config: CheckConfig) -> None:
    """Verify a bundle's files and run its golden sample."""
    runner = BundleRunner(config.bundle)
    say(f"{len(runner.manifest.files) + 1} files: sizes and hashes as listed")
    _say_golden(runner)
    for name in getattr(runner.manifest, "variants", {}):
        _say_golden(BundleRunner(config.bundle, variant=name))


def _say_golden(runner: BundleRunner) -> None:
    golden = runner.check_golden()
    say(
        f"golden sample, {runner.file}: {golden.rows} rows, max |difference| {golden.max_abs_difference:.2e}, "
        f"top-1 agreement {100 * golden.top1_agreement:.0f} %"
    )


COMMAND = Command(
    "check",
    CheckConfig,
    check,
    "Verify a bundle's hashes and run its golden sample.",
    "python -m deploy check runs/bundle",
    place=20,
)
