"""What an installation costs: packages and megabytes of each extra, and the time each import takes.

`python -m tests.benchmarks.install` prints two markdown tables for the environment it runs in.
"""

import importlib.metadata
import resource
import statistics
import subprocess
import sys
from collections.abc import Iterable

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PROJECT, PACKAGES = "saga-peft", ("shared_peft", "vision", "imu_saga", "deploy")
EXTRAS = ("", "plot", "parquet", "cluster", "deploy", "all")
REPEATS = 7


def closure(extras: Iterable[str]) -> set[str]:
    """Return the distributions that the project needs with some extras, itself left out."""
    found: dict[str, set[str]] = {}
    open_names = [(PROJECT, frozenset(extras))]
    while open_names:
        name, wanted = open_names.pop()
        known = found.setdefault(canonicalize_name(name), set())
        if name != PROJECT and known >= {"", *wanted}:
            continue
        known |= {"", *wanted}
        for line in importlib.metadata.requires(name) or ():
            requirement = Requirement(line)
            marker = requirement.marker
            if marker is None or any(marker.evaluate({"extra": extra}) for extra in {"", *wanted}):
                open_names.append((requirement.name, frozenset(requirement.extras)))
    return set(found) - {PROJECT}


def megabytes(names: Iterable[str]) -> float:
    """Return the room that distributions take on the disk [MiB]."""
    files = {path.locate() for name in names for path in importlib.metadata.files(name) or ()}
    return sum(path.stat().st_size for path in files if path.is_file()) / 2**20  # type: ignore[attr-defined]


def import_seconds(package: str) -> float:
    """Return the processor time of a fresh process that imports a package, without Python's own start [s]."""

    def once(code: str) -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-c", code], check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    return statistics.median(once(f"import {package}") - once("pass") for _ in range(REPEATS))


def main() -> None:
    """Print both tables."""
    base = closure(())
    print("| extra | packages | MiB | of which torch |\n|---|---|---|---|")
    torch = megabytes(["torch"])
    for extra in EXTRAS:
        names = closure([extra] if extra else ())
        print(f"| {extra or '(none)'} | {len(names)} | {megabytes(names):.0f} | {torch:.0f} |")
    own = sorted(name for name in base if name in {canonicalize_name(Requirement(r).name) for r in direct()})
    print(f"\n{len(own)} of the {len(base)} are asked for by name: {', '.join(own)}.\n")
    print("| import | processor time [s] |\n|---|---|")
    for package in (*PACKAGES, "torch"):
        print(f"| {package} | {import_seconds(package):.2f} |")


def direct() -> list[str]:
    """Return the requirements that stand in pyproject.toml outside the extras."""
    return [line for line in importlib.metadata.requires(PROJECT) or () if "extra ==" not in line]


if __name__ == "__main__":
    main()
