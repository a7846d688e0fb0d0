"""`python -m deploy bench BUNDLE --out FOLDER`: how a bundle's files perform here, as tables, JSON and a picture."""

import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from shared_peft.atomic import write_json
from shared_peft.command import Command
from shared_peft.config import to_json

UNADAPTED = "unadapted"


@dataclass(frozen=True)
class BenchConfig:
    """Options of `bench`."""

    bundle: Positional[Path]
    """Folder of a bundle, of one task or of many adapters."""
    out: Path
    """Folder for bench.json and bench.png."""
    beside: tuple[Path, ...] = ()
    """Further bundles measured in turns with it."""
    run: Path | None = None
    """The run it was exported from: the same model without its adapter is exported for the while and measured, too."""
    rounds: int = 100
    """Calls of each file that count, for each number of threads."""


def run_bench(config: BenchConfig) -> None:
    """Measure, print the tables, write JSON and picture."""
    from deploy.bench import BenchOptions, bench, bench_table  # noqa: PLC0415  (slow to import)
    from deploy.bench.picture import draw_bench  # noqa: PLC0415
    from deploy.bench.unadapted import export_unadapted  # noqa: PLC0415

    with tempfile.TemporaryDirectory() as scratch:
        beside = config.beside
        if config.run is not None:
            beside = (Path(scratch, UNADAPTED), *beside)
            export_unadapted(config.run, config.bundle, beside[0])
        rows = bench(config.bundle, BenchOptions(beside, config.rounds, progress=sys.stderr.isatty()))
    sys.stdout.write(bench_table(rows))
    write_json(config.out / "bench.json", [to_json(row) for row in rows])
    draw_bench(rows, config.out / "bench.png")


COMMAND = Command(
    "bench",
    BenchConfig,
    run_bench,
    "Measure load time, latency, memory, operators and accelerator coverage of every file.",
    "python -m deploy bench runs/bundle --run runs/finetune --out runs/bench",
    place=30,
)
