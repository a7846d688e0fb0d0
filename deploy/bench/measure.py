"""Everything that is measured of a bundle's files, the files of another bundle beside them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from deploy.bench.coverage import Coverage, coverage
from deploy.bench.latency import Latency, latencies
from deploy.bench.operators import operator_shares
from deploy.bench.probe import Probe, probe
from deploy.model_files import ModelFile, model_files
from shared_peft.progress import Bar

THREADS = (1, 2)


@dataclass(frozen=True)
class BenchOptions:
    """How a bundle is measured.

    Args:
        beside: other bundles measured in turns with it, such as one of the same model unadapted.
        rounds: calls of each file that count, for each number of threads.
        progress: show progress bars.
    """

    beside: tuple[Path, ...] = ()
    rounds: int = 100
    progress: bool = False


@dataclass(frozen=True)
class FileBench:
    """One file's numbers.

    Args:
        bundle: name of its bundle's folder.
        file: its name, and its task's.
        size_mb: of the file and of its adapter [MB].
        probe: load time and memory.
        latency: at 1 and 2 threads.
        operators: share of time by operator, the largest first.
        coverage: by accelerator.
    """

    bundle: str
    file: str
    size_mb: float
    probe: Probe
    latency: tuple[Latency, ...]
    operators: dict[str, float]
    coverage: dict[str, Coverage]


def bench(bundle: Path, options: BenchOptions | None = None) -> list[FileBench]:
    """Measure every file of a bundle: its model and variants; or its base without any adapter, then with each task.

    Args:
        bundle: the bundle's folder.
        options: how it is measured.

    Raises:
        BundleError: a bundle was changed, or a file cannot be loaded.
        ExportError: a file does not run in a fresh process.
    """
    options = options or BenchOptions()
    files = [file for each in (bundle, *options.beside) for file in _measured(model_files(each))]
    runs = [latencies(files, threads, rounds=options.rounds, progress=options.progress) for threads in THREADS]
    found = []
    for file, latency in zip(
        Bar(files, desc="load, profile", unit="file", disable=not options.progress),
        zip(*runs, strict=True),
        strict=True,
    ):
        size_mb = sum(path.stat().st_size for path in (file.path, file.adapter) if path) / 1e6
        found.append(
            FileBench(
                file.bundle.absolute().name,
                _name(file),
                size_mb,
                probe(file),
                latency,
                operator_shares(file),
                coverage(file),
            )
        )
    return found


def _measured(files: Sequence[ModelFile]) -> list[ModelFile]:
    """Return the files, and before a base's first task the base without any adapter: the same model unadapted."""
    first = files[0]
    return [*([replace(first, task="", adapter=None)] if first.adapter else []), *files]


def _name(file: ModelFile) -> str:
    return f"{file.name}, no adapter" if file.base_sha256 and file.adapter is None else file.name
