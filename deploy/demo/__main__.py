"""`python -m deploy.demo`: the main job, end to end, on built-in data."""

import os
import platform
import shutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from deploy.demo.digits import run_digits
from deploy.demo.motion import run_motion
from deploy.demo.phone import run_phone
from deploy.demo.report import page
from deploy.demo.tables import Table
from shared_peft.atomic import write_text
from shared_peft.command import Command, run_command
from shared_peft.errors import RunError
from shared_peft.training import package_versions

LEAD = (
    "Everything below was trained, adapted, exported and checked on this machine just now, from data that comes with "
    "the package: synthetic motion recordings and scikit-learn's digits."
)


@dataclass(frozen=True)
class DemoConfig:
    """Options of the demo."""

    out: Path = Path("runs/demo")
    """Folder to write; what an earlier demo left there is replaced."""
    seed: int = 0
    """Seed of every draw."""


def demo(config: DemoConfig) -> None:
    """Run every part, print its tables and write report.html."""
    started = time.perf_counter()
    _make_room(config.out)
    motion, motion_runs, validation = run_motion(config.out / "motion", config.seed)
    digits, digit_runs = run_digits(config.out / "vision", config.seed)
    measured = {motion_runs[-1]: validation, digit_runs[-1]: None}
    phone = run_phone([*motion_runs, *digit_runs], measured, config.out / "bundles")
    chapters = (motion, digits, phone)
    seconds = time.perf_counter() - started
    facts = [
        f"Command: python -m deploy.demo --out {config.out.name} --seed {config.seed}",
        f"Time: {seconds:.0f} s on {os.cpu_count()} cores ({platform.machine()}, {platform.system()})",
        "Versions: " + ", ".join(f"{name} {version}" for name, version in package_versions().items()),
    ]
    write_text(config.out / "report.html", page("Saga-PEFT: the demo's report", LEAD, chapters, facts))
    tables = [item.as_text() for chapter in chapters for item in chapter.items if isinstance(item, Table)]
    sys.stdout.write("\n" + "\n".join(tables) + f"\n{seconds:.0f} s. Report: {config.out / 'report.html'}\n")


def _make_room(out: Path) -> None:
    """Remove what an earlier demo wrote; refuse a folder that holds anything else."""
    ours = {"motion", "vision", "bundles", "report.html"}
    other = sorted(entry.name for entry in out.iterdir() if entry.name not in ours) if out.exists() else []
    if other:
        raise RunError(out, "must be a new folder or an earlier demo's", ", ".join(other[:5]), "Choose another --out")
    for name in ours:
        path = out / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


COMMAND = Command("demo", DemoConfig, demo, "Run everything on built-in data.", "python -m deploy.demo --out runs/demo")

if __name__ == "__main__":
    sys.exit(run_command("deploy.demo", COMMAND))
