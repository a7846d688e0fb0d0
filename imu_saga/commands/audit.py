"""`python -m imu_saga audit`."""

import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import tyro

from imu_saga.evaluation.audit import LeakError, audit_run, audit_table
from shared_peft.atomic import write_json
from shared_peft.command import Command


@dataclass(frozen=True)
class AuditOptions:
    """Options of `python -m imu_saga audit`."""

    run: tyro.conf.Positional[Path]
    """A run of pretrain, search or finetune."""
    transductive: bool = False
    """Allow test people, without their labels, in pre-training."""
    out: Path | None = None
    """JSON file to write what was found to."""


def run(options: AuditOptions) -> None:
    """Print what the run is tested on beside all it and its ancestors were trained on; fail on any leak."""
    found = audit_run(options.run, transductive=options.transductive)
    sys.stdout.write(audit_table(found) + "\n")
    if options.out is not None:
        write_json(options.out, {**asdict(found), "verdict": found.verdict})
    leaks = [finding for finding in found.findings if finding.leaks]
    if leaks:
        must = "no subject, session or raw sample that is tested may have been trained on"
        first = leaks[0]
        got = f"{len(leaks)} leaks, first {first.shared} {first.kind}s shared by {first.tested} and {first.trained}"
        raise LeakError(options.run, must, got, "Pre-train and fine-tune with the same --protocol and --split-seed")
    if found.verdict == "unknown":
        got = found.unknown[0] if found.unknown else "nothing to compare"
        raise LeakError(options.run, "all it was trained on must be known", got, "Give that run back, or train anew")


COMMAND = Command(
    name="audit",
    config=AuditOptions,
    run=run,
    summary="Check that nothing a run is tested on was trained on, by it or by any run it comes from.",
    example="python -m imu_saga audit runs/finetune",
    place=34,
)
