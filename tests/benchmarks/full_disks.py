"""Every command that writes, on a disk that fills up at several moments, and on one that is read-only.

Run as root, since it mounts a small tmpfs: python -m tests.benchmarks.full_disks [--sizes 5] [--only WORD]
"""

import argparse
import contextlib
import io
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from unittest import mock

from shared_peft.command import EXIT_USER_ERROR
from tests.faults.cases import CASES, Case, make_bundle, make_materials
from tests.faults.killing import contents

PAGE, LARGE = 4096, 1 << 26
MEASURES = {"vision compare", "deploy bench"}  # they tell how long things took; of their files names are compared


@dataclass
class Found:
    """What a command did on bad disks.

    Args:
        tried: how often it was run on one.
        complaints: what was wrong.
    """

    tried: int = 0
    complaints: list[str] = field(default_factory=list)


@contextlib.contextmanager
def disk(folder: Path) -> Iterator[Path]:
    """Mount a tmpfs on a new folder."""
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={LARGE}", "tmpfs", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def remount(folder: Path, options: str) -> None:
    """Change a mounted disk."""
    subprocess.run(["mount", "-o", f"remount,{options}", str(folder)], check=True)


def call(case: Case, made: Path, out: Path, *more: str) -> tuple[int, str]:
    """Run a command; return its status and the last line on standard error."""
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        status = case.call(made, out, *more)
    return status, (said.getvalue().strip().splitlines() or [""])[-1]


def written(case: Case, path: Path) -> dict:
    """Return what a command wrote to ``path``, a folder or a file."""
    path = case.target(path)
    found = contents(path) if path.is_dir() else {path.name: path.read_bytes()}
    timed = any(CASES[name] is case for name in MEASURES)
    return {name: None if timed and not name.startswith("answers/") else value for name, value in found.items()}


def try_command(case: Case, made: Path, place: Path, sizes: int) -> Found:
    """Run a command on disks of several sizes, then on one that holds its output already and is full or read-only."""
    found = Found()
    with disk(place) as room:
        whole = room / "whole" / "out"
        status, said = call(case, made, whole)
        assert status == 0, said
        expected, pages = written(case, whole), _pages(case.target(whole))
        again = ("--resume",) if case.writes == "run" else ()
        for size in sorted({number * pages // sizes for number in range(sizes)}):
            out = room / f"disk_{size}"
            with disk(out):
                remount(out, f"size={max(1, size) * PAGE}")
                (out / "filler").write_bytes(b"" if size else b"x" * PAGE)
                _judge(
                    found, out, *call(case, made, out / "out"), f"{size} of {pages} pages", whole=case.writes == "whole"
                )
                (out / "filler").unlink()
                remount(out, f"size={LARGE}")
                status, said = call(case, made, out / "out", *again)
                if status or written(case, out / "out") != expected:
                    found.complaints.append(f"after {size} pages: another result, status {status} {said}")
        _try_closed(found, case, made, room / "closed", expected)
    return found


def _try_closed(found: Found, case: Case, made: Path, place: Path, expected: dict) -> None:
    """Write, make the disk full and then read-only, and write again: refused, and what was there stays."""
    with disk(place):
        assert call(case, made, place / "out")[0] == 0
        again = ("--resume",) if case.writes == "run" else ()
        blocks = os.statvfs(place)
        remount(place, f"size={(blocks.f_blocks - blocks.f_bfree) * PAGE}")
        for state in ("full", "ro"):
            if state == "ro":
                remount(place, "ro")
            out = place / "out" if case.writes == "files" else place / f"new_{state}"
            _judge(found, place, *call(case, made, out), state)
            call(case, made, place / "out", *again)
            if written(case, place / "out") != expected:
                found.complaints.append(f"{state}: what was there has changed")


def _judge(found: Found, folder: Path, status: int, said: str, when: str, *, whole: bool = False) -> None:
    """Note what is wrong with how a command failed."""
    found.tried += 1
    told = re.match(rf"\w*Error: .*({re.escape(str(folder))}|Files for a moment lie in ).*(room|writing there)", said)
    if status != EXIT_USER_ERROR or not told:
        found.complaints.append(f"{when}: status {status}, {said}")
    left = [path.name for path in folder.rglob("*") if path.name.endswith(".part") or (whole and path.is_dir())]
    if left:
        found.complaints.append(f"{when}: left {', '.join(left)}")


def _pages(path: Path) -> int:
    files = [path] if path.is_file() else [each for each in path.rglob("*") if each.is_file()]
    return sum(-(-file.stat().st_size // PAGE) for file in files)


def main() -> None:
    """Print a row for each command; exit with 1 where anything was wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, default=5, help="of the disk, between nothing and the command's output")
    parser.add_argument("--only", default="", help="commands whose name holds this")
    options = parser.parse_args()
    good = True
    print("| command | bad disks | told in one line, nothing half-written, good files kept, then as undisturbed |")
    print("|---|---|---|")
    with tempfile.TemporaryDirectory() as folder, mock.patch("deploy.web.site.runtime_files", return_value={}):
        with contextlib.redirect_stdout(sys.stderr):
            made = make_bundle(make_materials(Path(folder) / "made"))
        for name, case in CASES.items():
            if options.only in name:
                found = try_command(case, made, Path(folder) / name.replace(" ", "_"), options.sizes)
                print(f"| {name} | {found.tried} | {'; '.join(found.complaints) or 'yes'} |", flush=True)
                good &= not found.complaints
    sys.exit(not good)


if __name__ == "__main__":
    main()
