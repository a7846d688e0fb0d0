"""Commands killed with SIGKILL at random moments and started again: the same end, or one error that says what to do.

Run: python -m tests.benchmarks.kills --kills 50 --seed 0
"""

import argparse
import contextlib
import random
import shutil
import sys
import tempfile
from collections import Counter
from pathlib import Path

from tests.faults.cases import CASES, make_materials
from tests.faults.killing import KILLED, Killed, kill_once, run_command


def undisturbed(name: str, made: Path, out: Path) -> float:
    """Run a command to its end and return how long that took [s]."""
    ended = run_command(CASES[name], made, out, out.parent / f"{out.name}.log")
    if ended.status:
        sys.exit(f"{name} ended with status {ended.status}: {ended.said}")
    return ended.seconds


def main() -> None:
    """Kill, start again, print one row for each command; exit with 1 where anything went wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50, help="how many, in turns over the commands")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    options = parser.parse_args()
    moments, found = random.Random(options.seed), {name: list[Killed]() for name in KILLED}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        with contextlib.redirect_stdout(sys.stderr):
            made = make_materials(root / "made")
        wholes = {name: root / "whole" / name.replace(" ", "_") for name in KILLED}
        (root / "whole").mkdir()
        seconds = {name: undisturbed(name, made, out) for name, out in wholes.items()}
        for number in range(options.kills):
            name = KILLED[number % len(KILLED)]
            scratch, after_s = root / "killed", moments.random() * seconds[name]
            scratch.mkdir()
            killed = kill_once(name, made, scratch, wholes[name], after_s)
            found[name].append(killed)
            shutil.rmtree(scratch)
            print(f"{name} after {after_s:.2f} s: {killed.outcome} {killed.reason}", file=sys.stderr, flush=True)
    print("| command | undisturbed [s] | kills | resumed equal | told what to do | wrong |")
    print("|---|---|---|---|---|---|")
    for name, rows in found.items():
        counts = Counter(row.outcome for row in rows)
        numbers = [len(rows), counts["equal"], counts["told"], counts["wrong"]]
        print(f"| {name} | {seconds[name]:.1f} | " + " | ".join(map(str, numbers)) + " |")
    sys.exit(any(row.outcome == "wrong" for rows in found.values() for row in rows))


if __name__ == "__main__":
    main()
