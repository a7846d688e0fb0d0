"""sides.json: which people, sessions and stretches of raw samples stood on each side of a run (format ours).

Times are those of the original sessions' clocks [s], so that runs of any window length, rate and overlap compare.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from imu_saga.card import WEIGHTS
from imu_saga.combine import person_name
from imu_saga.shipped import checkpoint_path
from imu_saga.windows import WindowSet
from shared_peft.atomic import sha256_of, write_text
from shared_peft.config import from_json, read_json
from shared_peft.errors import RunError

SIDES = "sides.json"
SCHEMA_VERSION = 1
TRAINED, TESTED = ("pretrain", "train", "validation"), ("test", "impostors")
DECIMALS = 4  # of a second; a raw sample lasts 1 ms or more

Intervals = list[float]  # start, end, start, end, ... [s], ascending and disjoint
Sessions = dict[str, dict[str, Intervals]]  # by session, then by placement


@dataclass(frozen=True)
class Side:
    """One side of a run.

    Args:
        windows: number of windows.
        window_s: duration of a window [s].
        people: stretches of raw samples by person (data set/subject), session and placement.
    """

    windows: int
    window_s: float
    people: dict[str, Sessions]


@dataclass(frozen=True)
class Footprint:
    """Every side of a run.

    Args:
        task: what was told apart.
        protocol: how the sides were split.
        sides: by name: pretrain, train, validation, test, impostors.
        made_from: SHA-256 of what each run it started from held, by option (checkpoint, start, weights_from).
        schema_version: of this format.
    """

    task: str
    protocol: str
    sides: dict[str, Side]
    made_from: dict[str, str] = field(default_factory=dict)
    schema_version: int = SCHEMA_VERSION


def side_of(windows: WindowSet) -> Side:
    """Return the footprint of windows, in any order; windows that touch or overlap become one stretch."""
    found: dict[tuple[str, str, str], list[tuple[float, float]]] = {}
    count, slack = len(windows), 0.5 / windows.rate_hz
    steps = np.diff(windows.start_s)
    goes_on = (windows.sessions[1:] == windows.sessions[:-1]) & (steps >= 0) & (steps <= windows.seconds + slack)
    firsts = np.flatnonzero(np.concatenate([[True], ~goes_on])[:count])
    lasts = np.append(firsts[1:] - 1, count - 1)[: len(firsts)]
    for first, last in zip(firsts.tolist(), lasts.tolist(), strict=True):
        address, placement = str(windows.sessions[first]), str(windows.placements[first])
        person = person_name(address.partition("/")[0], str(windows.subjects[first]))
        session = address.removesuffix(f"/{placement}").removeprefix(f"{person}/")
        stretch = float(windows.start_s[first]), float(windows.start_s[last]) + windows.seconds
        found.setdefault((person, session, placement), []).append(stretch)
    people: dict[str, Sessions] = {}
    for (person, session, placement), stretches in sorted(found.items()):
        people.setdefault(person, {}).setdefault(session, {})[placement] = merged(stretches, slack)
    return Side(count, float(windows.seconds), people)


def merged(stretches: list[tuple[float, float]], slack_s: float) -> Intervals:
    """Return stretches (start, end) [s] in order, those that touch within ``slack_s`` joined, flat and rounded."""
    ordered = np.asarray(sorted(stretches))
    ends = np.maximum.accumulate(ordered[:, 1])
    fresh = np.concatenate([[True], ordered[1:, 0] > ends[:-1] + slack_s])
    last = np.append(np.flatnonzero(fresh)[1:] - 1, len(ordered) - 1)
    return np.stack([ordered[fresh, 0], ends[last]], axis=1).round(DECIMALS).ravel().tolist()


def write_footprint(
    folder: Path,
    sides: Mapping[str, WindowSet],
    *,
    task: str,
    protocol: str,
    made_from: Mapping[str, Path | None] | None = None,
) -> None:
    """Write sides.json into a run folder.

    Args:
        folder: the run folder.
        sides: the windows of each side, by name; empty ones are left out.
        task: what is told apart.
        protocol: how the sides were split.
        made_from: runs or weight files this run starts from, by option.
    """
    strange = set(sides) - {*TRAINED, *TESTED}
    assert not strange, f"sides are called {TRAINED + TESTED}, not {strange}"
    values = {
        "schema_version": SCHEMA_VERSION,
        "task": task,
        "protocol": protocol,
        "made_from": {name: mark for name, path in (made_from or {}).items() if path and (mark := mark_of(path))},
        "sides": {name: vars(side_of(windows)) for name, windows in sides.items() if len(windows)},
    }
    write_text(folder / SIDES, json.dumps(values, ensure_ascii=False, separators=(",", ":")) + "\n")


def read_footprint(folder: Path) -> Footprint:
    """Read sides.json of a run folder.

    Raises:
        RunError: there is none, so that the run cannot be audited, or one of a newer format.
        ConfigError: it is damaged.
    """
    path = folder / SIDES
    if not path.is_file():
        fix = "Run it again by command; runs made before sides.json was written cannot be audited"
        raise RunError(folder, f"must hold {SIDES} to be audited", "no such file", fix)
    values: Any = read_json(path)
    version = values.get("schema_version") if isinstance(values, dict) else None
    if version != SCHEMA_VERSION:
        raise RunError(path, f"schema_version must be {SCHEMA_VERSION}", version, "Use the version that wrote it")
    return from_json(Footprint, values, str(path))


def mark_of(path: Path) -> str:
    """Return the SHA-256 of what a run passes on, its weights or what a search found, or of a weight file; or ""."""
    path = checkpoint_path(path)
    for file in (path, path / WEIGHTS, path / "best.json"):
        if file.is_file():
            return sha256_of(file)
    return ""
