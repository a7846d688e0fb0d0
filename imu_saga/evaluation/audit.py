"""The audit of a run: nothing it is tested on may have been trained on, by it or by any run it comes from (ours)."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from imu_saga.evaluation.footprint import TESTED, TRAINED, Footprint, Intervals, Side, mark_of, read_footprint
from imu_saga.shipped import checkpoint_path
from shared_peft.errors import SagaPeftError
from shared_peft.training import RunFolder

LINKS = ("checkpoint", "start", "weights_from", "warm_start")  # options that name a run this one comes from
LEAST_OVERLAP_S = 1e-3  # [s] rounding; no raw sample is shorter
N_EXAMPLES = 3
Kind = Literal["subject", "session", "raw sample"]


class LeakError(SagaPeftError):
    """Something a run is tested on was trained on, or nobody can know."""


@dataclass(frozen=True)
class Finding:
    """One comparison of a side that is tested with a side that was trained on.

    Args:
        tested: "test" or "impostors", of the audited run.
        trained: "pretrain", "train" or "validation".
        run: the run that trained.
        kind: what was compared.
        shared: how many stand on both sides; of raw samples, the sessions that share some.
        examples: up to 3 of them.
        allowed: why sharing is no leak here; empty where it is one.
    """

    tested: str
    trained: str
    run: str
    kind: Kind
    shared: int
    examples: tuple[str, ...] = ()
    allowed: str = ""

    @property
    def leaks(self) -> bool:
        """Whether this is a leak."""
        return self.shared > 0 and not self.allowed


@dataclass(frozen=True)
class Audit:
    """What an audit found.

    Args:
        run: the audited run.
        task: its task.
        findings: every comparison made.
        unknown: runs or files whose training data cannot be told, with the reason.
    """

    run: str
    task: str
    findings: tuple[Finding, ...]
    unknown: tuple[str, ...]

    @property
    def verdict(self) -> Literal["leak", "unknown", "passed"]:
        """What came of it: "passed" only if everything is known, something was compared, and nothing leaks."""
        if any(finding.leaks for finding in self.findings):
            return "leak"
        return "unknown" if self.unknown or not self.findings else "passed"


def audit_run(path: Path, *, transductive: bool = False) -> Audit:
    """Audit a run and all it comes from.

    Args:
        path: a run folder.
        transductive: allow what is tested to stand, without labels, in pre-training.

    Raises:
        RunError: no run there, or one without sides.json: it cannot be audited.
    """
    RunFolder(path).describe("imu_saga")
    own, unknown, findings = read_footprint(path), [], []
    for run, footprint, reason in ancestry(path):
        if footprint is None:
            unknown.append(f"{run}: {reason}")
            continue
        for trained in (name for name in TRAINED if name in footprint.sides):
            for tested in (name for name in TESTED if name in own.sides):
                users = own.task == "user" and tested == "test"
                excuse = "pre-training without labels (transductive)" if transductive and trained == "pretrain" else ""
                compared = compare(own.sides[tested], footprint.sides[trained], users=users)
                for kind, shared, allowed in compared:
                    examples = tuple(shared[:N_EXAMPLES])
                    findings.append(
                        Finding(
                            tested,
                            trained,
                            str(run),
                            kind,
                            len(shared),
                            examples,
                            (excuse or allowed) if shared else "",
                        )
                    )
    return Audit(str(path), own.task, tuple(findings), tuple(unknown))


def ancestry(path: Path) -> Iterator[tuple[Path, Footprint | None, str]]:
    """Yield the run and every run it comes from, each once: its path, its footprint or None, and why it is None."""
    waiting, seen = [(path, "")], set()
    while waiting:
        run, mark = waiting.pop()
        if run.resolve() in seen:
            continue
        seen.add(run.resolve())
        reason = _unreadable(run, mark)
        if reason:
            yield run, None, reason
            continue
        try:
            config, footprint = RunFolder(run).describe("imu_saga").get("config", {}), read_footprint(run)
        except SagaPeftError as error:
            yield run, None, str(error)
            continue
        yield run, footprint, ""
        waiting += [
            (checkpoint_path(config[name]), footprint.made_from.get(name, "")) for name in LINKS if config.get(name)
        ]


def compare(tested: Side, trained: Side, *, users: bool) -> list[tuple[Kind, list[str], str]]:
    """Compare two sides.

    Args:
        tested: a side that is tested.
        trained: a side that was trained on.
        users: the people are the classes, so that they may stand on both sides, in other sessions; a person with one
            session only may have it divided, with a gap of a window or more.

    Returns:
        What was compared, what is shared, and why that is no leak (empty where it is one).
    """
    people = sorted(tested.people.keys() & trained.people.keys())
    sessions, undivided, overlapping = [], [], []
    gap_s = max(tested.window_s, trained.window_s) - LEAST_OVERLAP_S
    for person in people:
        one, other = tested.people[person], trained.people[person]
        single = users and len(one.keys() | other.keys()) == 1
        for session in sorted(one.keys() & other.keys()):
            sessions.append(f"{person}/{session}")
            if not (single and _gap(_all(one[session]), _all(other[session])) >= gap_s):
                undivided.append(sessions[-1])
            for placement in sorted(one[session].keys() & other[session].keys()):
                seconds = shared_seconds(one[session][placement], other[session][placement])
                if seconds:
                    overlapping.append(f"{sessions[-1]}/{placement} ({seconds:.1f} s)")
    return [
        ("subject", people, "the people are the classes" if users else ""),
        ("session", undivided or sessions, "" if undivided else "their only session, divided by a gap of a window"),
        ("raw sample", overlapping, ""),
    ]


def shared_seconds(one: Intervals, other: Intervals) -> float:
    """Return how long two lists of disjoint stretches (start, end, ...) [s] overlap; touching ends do not count."""
    edges, ends = np.asarray(other).reshape(-1, 2), np.asarray(one).reshape(-1, 2)
    covered = np.concatenate([[0.0], np.cumsum(edges[:, 1] - edges[:, 0])])
    knots = np.stack([covered[:-1], covered[1:]], axis=1).ravel()
    overlaps = np.interp(ends[:, 1], edges.ravel(), knots) - np.interp(ends[:, 0], edges.ravel(), knots)
    return float(overlaps[overlaps > LEAST_OVERLAP_S].sum())


def _gap(one: Intervals, other: Intervals) -> float:
    """Return the shortest time between two lists of stretches (start, end, ...) [s]; 0 where they overlap."""
    first, second = np.asarray(one).reshape(-1, 2), np.asarray(other).reshape(-1, 2)
    second = second[np.argsort(second[:, 0])]
    last_end = np.concatenate([[-np.inf], np.maximum.accumulate(second[:, 1])])
    next_start = np.append(second[:, 0], np.inf)
    place = np.searchsorted(second[:, 0], first[:, 0], side="right")
    before, after = first[:, 0] - last_end[place], next_start[place] - first[:, 1]
    return max(0.0, float(np.minimum(before, after).min()))


def _all(placements: dict[str, Intervals]) -> Intervals:
    return [edge for stretches in placements.values() for edge in stretches]


def _unreadable(run: Path, mark: str) -> str:
    """Return why a run's training data cannot be told, or ""."""
    if run.is_file():
        return "a weight file; what it was trained on is not recorded"
    if not run.is_dir():
        return "not found; it was moved or removed"
    return "holds other weights than the run was made from" if mark and mark_of(run) != mark else ""


def audit_table(found: Audit) -> str:
    """Return every comparison as a markdown table, what is unknown, and the verdict."""
    lines = ["| tested | trained on | by run | compared | shared | examples | verdict |", "|---" * 7 + "|"]
    for each in found.findings:
        word = "LEAK" if each.leaks else f"allowed: {each.allowed}" if each.shared else "apart"
        examples = ", ".join(each.examples) + (", ..." if each.shared > len(each.examples) else "")
        cells = (each.tested, each.trained, each.run, each.kind, str(each.shared), examples, word)
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", *(f"unknown: {reason}" for reason in found.unknown)]
    return "\n".join([*lines, f"verdict: {found.verdict.upper()} ({found.run}, task {found.task})"])
