"""The run folder: what was asked (config.json), what happened (metrics.jsonl), what came of it."""

import contextlib
import importlib.metadata
import json
import platform
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from shared_peft.atomic import is_leftover, sweep, write_json, write_text
from shared_peft.config import read_json
from shared_peft.errors import RunError
from shared_peft.lock import held
from shared_peft.writing import made_folder, writing

SCHEMA_VERSION = 1
CONFIG, METRICS, LOCK = "config.json", "metrics.jsonl", ".lock"
_REPORTED_PACKAGES = ("saga-peft", "torch", "torchvision", "timm", "numpy", "scipy", "scikit-learn", "onnxruntime")


def package_versions() -> dict[str, str]:
    """Return the versions of Python and of the packages a result depends on."""
    found = {"python": platform.python_version()}
    for name in _REPORTED_PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


class RunFolder:
    """A folder that one run writes into.

    Files: ``config.json`` (kind, config, seed, versions, command), ``metrics.jsonl`` (one object a line),
    ``checkpoint.pt`` (to resume from), and whatever results the run adds.

    Args:
        path: an existing run folder; use `RunFolder.create` for a new one.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def create(cls, path: Path, kind: str, config: Mapping[str, Any], *, resume: bool = False) -> "RunFolder":
        """Open ``path`` for a run of ``kind``.

        Args:
            path: the folder to write into; made if absent.
            kind: "vision.finetune", "imu_saga.pretrain", ...
            config: the whole configuration as plain JSON values.
            resume: go on with the run that is already there; its config must be the same.

        Returns:
            The folder, with config.json written.

        Raises:
            RunError: the folder holds a run already (and ``resume`` is off), or one of another configuration.
        """
        folder = cls(path)
        described = {
            "schema_version": SCHEMA_VERSION,
            "kind": kind,
            "config": dict(config),
            "versions": package_versions(),
            "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        }
        folder._refuse_other_files()
        with made_folder(path), folder.locked():
            if (path / CONFIG).exists():
                folder._refuse_another(kind, described["config"], resume=resume)
                return folder
            write_json(path / CONFIG, json.loads(json.dumps(described)))
        return folder

    def _refuse_other_files(self) -> None:
        """Raise RunError where there is something, but no run."""
        if self.path.is_dir():
            files = [file for file in self.path.iterdir() if not is_leftover(file) and file.name != LOCK]
            free = not files or (self.path / CONFIG).exists()
        else:
            free = not self.path.exists()
        if not free:
            raise RunError(self.path, "must be a new or empty folder", "other files", "Choose another --out")

    def _refuse_another(self, kind: str, config: Mapping[str, Any], *, resume: bool) -> None:
        """Raise RunError where the run that is there may not, or cannot, be gone on with."""
        if not resume:
            fix = "Choose another --out, remove the folder, or pass --resume"
            raise RunError(self.path, "must be a new folder", "a folder that holds a run", fix)
        before = self.describe(kind)["config"]
        if changed := sorted(key for key, value in config.items() if before.get(key) != value):
            fix, got = "Resume with the same options, or choose another --out", f"changes in {', '.join(changed)}"
            raise RunError(self.path, "a resumed run must keep its configuration", got, fix)

    def describe(self, kind: str | None = None) -> dict[str, Any]:
        """Return config.json, checked to be of ``kind`` (a prefix such as "vision" will do).

        Raises:
            RunError: no run in the folder, a newer schema, or a run of another kind.
        """
        path = self.path / CONFIG
        if not path.is_file():
            raise RunError(self.path, "must be a run folder with config.json", "no such file", "Check the path")
        described = read_json(path)
        if not isinstance(described, dict) or described.get("schema_version") != SCHEMA_VERSION:
            must = f"schema_version must be {SCHEMA_VERSION}"
            got = described.get("schema_version") if isinstance(described, dict) else type(described).__name__
            raise RunError(path, must, got, "Use the version that wrote it, or run again")
        if not isinstance(described.get("kind"), str) or not isinstance(described.get("config"), dict):
            raise RunError(path, "must hold the run's kind and config", "something else", "Run again")
        if kind is not None and not described["kind"].startswith(kind):
            raise RunError(self.path, f"must be a run of kind {kind}", described["kind"], "Point at another run")
        return described

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder for one process; a second one is refused, a killed one leaves no lock behind.

        What a killed one left half-written is removed. A block that writes nothing leaves no lock file.

        Raises:
            RunError: another process holds it, or something in it is a link, through which a run would write.
        """
        links = [path.name for path in self.path.iterdir() if path.is_symlink()]
        if links:
            must, fix = "a folder that is written to must hold no links", "Put the files themselves there"
            raise RunError(self.path, must, ", ".join(links[:5]), fix)
        with held(self.path / LOCK, self.path):
            sweep(self.path)
            try:
                yield
            finally:
                if [file.name for file in self.path.iterdir()] == [LOCK]:
                    (self.path / LOCK).unlink()

    def log(self, **values: Any) -> None:
        """Append one JSON object to metrics.jsonl."""
        path = self.path / METRICS
        with writing(path), path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(values) + "\n")

    def forget_after(self, step: int) -> None:
        """Take out of metrics.jsonl what a killed run wrote after ``step``, and a line cut off by the kill."""
        path = self.path / METRICS
        if path.exists():
            kept = [row for row in self.read_log() if row.get("step", 0) <= step]
            write_text(path, "".join(json.dumps(row) + "\n" for row in kept))

    def read_log(self) -> list[dict[str, Any]]:
        """Return the objects of metrics.jsonl; a last line cut off by a kill is left out."""
        path = self.path / METRICS
        rows = []
        for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
            with contextlib.suppress(json.JSONDecodeError):
                rows.append(json.loads(line))
        return rows

    def write(self, name: str, value: Any) -> None:
        """Write ``value`` as JSON under ``name``, whole or not at all."""
        write_json(self.path / name, value)

    def read(self, name: str) -> Any:
        """Return the JSON stored under ``name``.

        Raises:
            RunError: the run did not write it.
        """
        path = self.path / name
        if not path.is_file():
            raise RunError(path, "must have been written by the run", "no such file", "Let the run finish first")
        return read_json(path)

    def read_object(self, name: str) -> dict[str, Any]:
        """Return the JSON object stored under ``name``.

        Raises:
            RunError: the run did not write it, or it is no object.
        """
        found = self.read(name)
        if not isinstance(found, dict):
            raise RunError(self.path / name, "must be an object", type(found).__name__, "Run again")
        return found
