"""The run folder: what was asked (config.json), what happened (metrics.jsonl), what came of it."""

import contextlib
import fcntl
import importlib.metadata
import json
import platform
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from shared_peft.atomic import write_json, write_text
from shared_peft.config import loads_json
from shared_peft.errors import RunError

SCHEMA_VERSION = 1
_REPORTED_PACKAGES = ("saga-peft", "torch", "torchvision", "timm", "numpy", "scipy", "scikit-learn", "onnxruntime")


def package_versions() -> dict[str, str]:
    """Return the versions of Python and of the packages a result depends on."""
    found = {"python": platform.python_version()}
    for name in _REPORTED_PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def _is_leftover(file: Path) -> bool:
    """Tell whether a file is what a kill left of one that was being written, see `shared_peft.atomic.replacing`."""
    return file.name.startswith(".") and file.suffix == ".part"


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
        if (path / "config.json").exists():
            if not resume:
                fix = "Choose another --out, remove the folder, or pass --resume"
                raise RunError(path, "must be a new folder", "a folder that holds a run", fix)
            before = folder.describe(kind)
            changed = sorted(k for k, v in described["config"].items() if before["config"].get(k) != v)
            if changed:
                fix = "Resume with the same options, or choose another --out"
                raise RunError(
                    path, "a resumed run must keep its configuration", f"changes in {', '.join(changed)}", fix
                )
            return folder
        if path.exists() and (not path.is_dir() or any(not _is_leftover(file) for file in path.iterdir())):
            raise RunError(path, "must be a new or empty folder", "other files", "Choose another --out")
        write_json(path / "config.json", json.loads(json.dumps(described)))
        return folder

    def describe(self, kind: str | None = None) -> dict[str, Any]:
        """Return config.json, checked to be of ``kind`` (a prefix such as "vision" will do).

        Raises:
            RunError: no run in the folder, a newer schema, or a run of another kind.
        """
        path = self.path / "config.json"
        if not path.is_file():
            raise RunError(self.path, "must be a run folder with config.json", "no such file", "Check the path")
        described = loads_json(path.read_bytes(), str(path))
        if not isinstance(described, dict) or described.get("schema_version") != SCHEMA_VERSION:
            must = f"schema_version must be {SCHEMA_VERSION}"
            got = described.get("schema_version") if isinstance(described, dict) else type(described).__name__
            raise RunError(path, must, got, "Use the version that wrote it, or run again")
        if kind is not None and not str(described.get("kind", "")).startswith(kind):
            raise RunError(self.path, f"must be a run of kind {kind}", described.get("kind"), "Point at another run")
        return described

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder for one process; a second one is refused, a killed one leaves no lock behind."""
        with (self.path / ".lock").open("w") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                fix = "Wait for it to end, or choose another --out"
                raise RunError(
                    self.path, "must be used by one run at a time", "another running process", fix
                ) from error
            yield

    def log(self, **values: Any) -> None:
        """Append one JSON object to metrics.jsonl."""
        with (self.path / "metrics.jsonl").open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(values) + "\n")

    def forget_after(self, step: int) -> None:
        """Take out of metrics.jsonl what a killed run wrote after ``step``, and a line cut off by the kill."""
        path = self.path / "metrics.jsonl"
        if path.exists():
            kept = [row for row in self.read_log() if row.get("step", 0) <= step]
            write_text(path, "".join(json.dumps(row) + "\n" for row in kept))

    def read_log(self) -> list[dict[str, Any]]:
        """Return the objects of metrics.jsonl; a last line cut off by a kill is left out."""
        path = self.path / "metrics.jsonl"
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
        return loads_json(path.read_bytes(), str(path))
