"""How many small faults the tests notice.

`pip install cosmic-ray==8.7.0 coverage==7.17.3 && python -m tests.benchmarks.mutation --sample 600 --out runs/mutation`

All tests run once to learn which lines each runs. Then places of the code are drawn, one operator at each, and the
tests that run the changed line decide: killed, timed out (counted as killed), or survived. Kept in ``--out``: started
again, it goes on. The tests of one mutant end after ``--seconds``, so survivors are rather too many than too few.
"""

import argparse
import json
import math
import random
import shutil
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import Queue
from threading import Lock

from shared_peft.atomic import write_json
from tests.benchmarks.mutation_sites import Mutant, sites
from tests.benchmarks.mutation_tests import BROKEN, KILLED, NOT_RUN, SURVIVED, TIMED_OUT, Observed, observe, verdict

PACKAGES = ["shared_peft", "imu_saga/masking"]
TESTS = [
    "tests/shared_peft",
    "tests/imu_saga/test_masking.py",
    "tests/imu_saga/test_pretrain.py",
    "tests/vision/test_finetune.py",
    "tests/vision/test_commands.py",
    "tests/vision/test_hostile_checkpoints.py",
    "tests/vision/comparison",
    "tests/faults/test_not_finite.py",
    "tests/faults/test_writing.py",
]


def main() -> None:
    """Draw, judge, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sample", type=int, default=600, help="mutants; 0 takes one at every place")
    parser.add_argument("--seconds", type=float, default=30, help="of tests for one mutant")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--packages", nargs="*", default=PACKAGES)
    parser.add_argument("--tests", nargs="*", default=TESTS)
    parser.add_argument("--out", type=Path, default=Path("runs/mutation"))
    options = parser.parse_args()
    out = options.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    source = _tracked(out / "source")
    trees = [_fresh(source, out / f"tree{worker}") for worker in range(options.workers)]
    judge = Judge(source, observe(source, options.packages, options.tests, out / "observed.json"), options.seconds)
    drawn = draw(source, options.packages, options.sample, options.seed)
    judge.check_unchanged(drawn[:3], trees[0])
    verdicts = judge_all(judge, drawn, trees, out / "verdicts.json")
    report(source, drawn, verdicts)


@dataclass(frozen=True)
class Judge:
    """Has the tests of a line decide on a mutant.

    Args:
        source: the unchanged tree.
        observed: which tests run which line.
        seconds: of tests for one mutant.
    """

    source: Path
    observed: Observed
    seconds: float

    def check_unchanged(self, mutants: list[Mutant], tree: Path) -> None:
        """End the program where tests fail on files that nobody changed."""
        for mutant in mutants:
            tests = self.observed.of(mutant.file, mutant.line, self.seconds / 3)
            if verdict(tree, mutant.file, self._sound(mutant), tests, 20 * self.seconds) not in (SURVIVED, NOT_RUN):
                sys.exit(f"The tests of {mutant.name} must pass on the unchanged file")

    def verdict(self, mutant: Mutant, tree: Path) -> str:
        """Return what became of a mutant; it counts as hanging or broken only where the unchanged file is neither."""
        tests, limit = self.observed.of(mutant.file, mutant.line, self.seconds), 3 * self.seconds + 60
        found = verdict(tree, mutant.file, mutant.source(self.source), tests, limit)
        if found not in (TIMED_OUT, BROKEN):
            return found
        if verdict(tree, mutant.file, self._sound(mutant), tests, limit) != SURVIVED:
            return SURVIVED
        return KILLED if found == BROKEN else TIMED_OUT

    def _sound(self, mutant: Mutant) -> str:
        return (self.source / mutant.file).read_text("utf-8")


def judge_all(judge: Judge, drawn: list[Mutant], trees: list[Path], kept: Path) -> dict[str, str]:
    """Return every mutant's verdict by name, those in ``kept`` taken from there; a tree serves one mutant at a time."""
    verdicts: dict[str, str] = json.loads(kept.read_text("utf-8")) if kept.is_file() else {}
    free: Queue[Path] = Queue()
    for tree in trees:
        free.put(tree)
    writing = Lock()

    def decide(mutant: Mutant) -> None:
        tree, start = free.get(), time.monotonic()
        found = judge.verdict(mutant, tree)
        free.put(tree)
        with writing:
            verdicts[mutant.name] = found
            write_json(kept, verdicts)
            print(len(verdicts), found, mutant.name, f"{time.monotonic() - start:.0f} s", flush=True)

    with ThreadPoolExecutor(len(trees)) as pool:
        list(pool.map(decide, [mutant for mutant in drawn if mutant.name not in verdicts]))
    return verdicts


def draw(root: Path, packages: list[str], count: int, seed: int) -> list[Mutant]:
    """Return one mutant at each of ``count`` places, drawn alike over all places of the packages."""
    generator = random.Random(seed)
    files = sorted(path.relative_to(root) for package in packages for path in (root / package).rglob("*.py"))
    every = [generator.choice(place) for file in files for place in sites(root, str(file))]
    generator.shuffle(every)
    return every[: count or None]


def report(root: Path, drawn: list[Mutant], verdicts: dict[str, str]) -> None:
    """Print the table and the survivors."""
    print("\n| folder | mutants | killed | timed out | survived | killed [%] |\n|---|---|---|---|---|---|")
    folders = {mutant: str(Path(mutant.file).parent) for mutant in drawn}
    for folder in [*sorted(set(folders.values())), "all"]:
        found = Counter(verdicts[m.name] for m in drawn if folder in ("all", folders[m]))
        dead, total = found[KILLED] + found[TIMED_OUT], found.total()
        low, high = _interval(dead, total)
        rate = f"{100 * dead / total:.1f} ({100 * low:.0f} to {100 * high:.0f})"
        print(f"| {folder} | {total} | {found[KILLED]} | {found[TIMED_OUT]} | {total - dead} | {rate} |")
    print("\nSurvivors:")
    for mutant in sorted(drawn, key=lambda mutant: (mutant.file, mutant.line)):
        if verdicts[mutant.name] not in (KILLED, TIMED_OUT):
            old = (root / mutant.file).read_text("utf-8").splitlines()
            new = mutant.source(root).splitlines()
            place = next((row for row, (was, now) in enumerate(zip(old, new, strict=False)) if was != now), 0)
            print(f"- `{mutant.name}` ({verdicts[mutant.name]}): `{old[place].strip()}` -> `{new[place].strip()}`")


def _interval(hits: int, total: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share."""
    z, share = 1.96, hits / total
    middle, width = share + z * z / (2 * total), z * math.sqrt(share * (1 - share) / total + (z / (2 * total)) ** 2)
    return (middle - width) / (1 + z * z / total), (middle + width) / (1 + z * z / total)


def _fresh(source: Path, tree: Path) -> Path:
    """Copy the tree for one worker; a mutant that an ended run left behind is gone."""
    shutil.rmtree(tree, ignore_errors=True)
    return shutil.copytree(source, tree)


def _tracked(tree: Path) -> Path:
    """Copy what git tracks, once."""
    if not tree.is_dir():
        files = subprocess.run(["git", "ls-files", "-z"], check=True, capture_output=True, text=True).stdout.split("\0")
        for file in filter(None, files):
            (tree / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(file, tree / file)
    return tree


if __name__ == "__main__":
    main()
