"""Runs what a page shows: its Python and its commands, in the page's order, in a folder of their own.

Languages of a page's blocks: `python` is executed, all blocks of a page in one namespace; `sh` (or none) holds
commands, executed in this process with a few steps only; `text` and everything else is shown and not executed. A Python
block with a title is a file to add to the house, which `tests.test_additions` writes and runs.
"""

import contextlib
import importlib
import io
import os
import re
import runpy
import shlex
import sys
import tempfile
import textwrap
import threading
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from deploy.web import make_server
from imu_saga.synthetic import Population, generate
from shared_peft.command import run_commands
from vision.torchvision_ops import declare_missing_operators

declare_missing_operators()  # pages that import timm by themselves meet a torchvision that fits in real life

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
_FENCE = re.compile(r"^(?P<indent> *)```(?P<head>[^\n]*)\n(?P<code>.*?)^(?P=indent)```\s*$", re.DOTALL | re.MULTILINE)
_TITLE = re.compile(r'title="([^"]+)"')
SHORTER: dict[tuple[str, str], list[str]] = {
    ("imu_saga", "pretrain"): ["--steps", "4"],
    ("imu_saga", "finetune"): ["--steps", "4"],
    ("imu_saga", "benchmark"): ["--methods", "majority", "logistic_regression", "--shots", "1"],
    ("vision", "pretrain"): ["--epochs", "2"],
    ("vision", "finetune"): ["--epochs", "1"],
    ("vision", "compare"): ["--epochs", "1", "--rate-factors", "1", "--seeds", "1"],
    ("vision", "explain"): ["--points", "60", "--maps", "2"],
    ("deploy", "web"): ["--runtime", "$ONNXRUNTIME_WEB"],
}
VARIABLES = {  # what real-data blocks name, and where it lies below the folder of real data
    "WEIGHTS": "weights/resnet20_cifar10.th",
    "IMAGES": "data/vision/sign_digits",
    "RECORDINGS": "data/imu/utd_mhad/raw",
}


@dataclass(frozen=True)
class Block:
    """One fenced block of a page.

    Args:
        language: the word behind the fence; "" where there is none.
        code: its lines.
        title: of a file to write; "" elsewhere.
    """

    language: str
    code: str
    title: str = ""

    @property
    def commands(self) -> list[str]:
        """The command lines of a shell block, continued lines joined, comments left out."""
        if self.language not in ("", "sh"):
            return []
        lines = self.code.replace("\\\n", " ").splitlines()
        return [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]

    @property
    def needs_real_data(self) -> bool:
        """Whether it names one of VARIABLES, or files of the user's that only real data can stand for."""
        return any(f"${name}" in self.code for name in VARIABLES) or "resnet20_cifar10.th" in self.code

    @property
    def runs(self) -> bool:
        """Whether it is executed here."""
        return bool(self.commands) or (self.language == "python" and not self.title and "--8<--" not in self.code)


def blocks_of(text: str) -> list[Block]:
    """Return the fenced blocks of a page, in order."""
    found = []
    for match in _FENCE.finditer(text):
        words, title = match["head"].split(), _TITLE.search(match["head"])
        found.append(Block(words[0] if words else "", textwrap.dedent(match["code"]), title[1] if title else ""))
    return found


def all_pages() -> list[Path]:
    """Return the README and every page of the documentation."""
    return [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]


def walk(
    text: str,
    folder: Path,
    shared: Path | None,
    runtime: Path | None = None,
    wanted: Callable[[Block], bool] = lambda block: True,
) -> list[str]:
    """Execute a page's blocks in their order and return what each printed.

    Args:
        text: the page.
        folder: an empty folder to work in. It gets FILE.csv, a recording as a user would have it.
        shared: folder of real data, where FOLDER and the variables point to; None leaves out blocks that need it.
        runtime: an installed onnxruntime-web for `deploy web`.
        wanted: which blocks to execute.
    """
    write_recording(folder / "FILE.csv")
    variables = {name: str(shared / path) for name, path in VARIABLES.items()} if shared else {}
    if shared:
        (folder / "FOLDER").symlink_to(variables["IMAGES"])
        (folder / "resnet20_cifar10.th").symlink_to(variables["WEIGHTS"])
    if runtime:
        variables["ONNXRUNTIME_WEB"] = str(runtime)
    namespace: dict[str, Any] = {"__name__": "page"}
    printed = []
    with _inside(folder), mock.patch.dict(os.environ, variables):
        for block in blocks_of(text):
            if block.runs and wanted(block) and (shared or not block.needs_real_data):
                with contextlib.redirect_stdout(io.StringIO()) as out:
                    run_block(block, namespace)
                printed.append(out.getvalue())
    return printed


@contextlib.contextmanager
def _inside(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def run_block(block: Block, namespace: dict[str, Any]) -> None:
    """Execute one block; what it must not do is fail."""
    if block.language == "python":
        exec(compile(block.code, "a page", "exec"), namespace)  # noqa: S102
    for line in block.commands:
        run_line(os.path.expandvars(line))


def run_line(line: str) -> None:
    """Execute one command line, in this process where it is Python."""
    words = shlex.split(line)
    for start, run in RUNNERS.items():
        if tuple(words[: len(start)]) == start:
            run(words[len(start) :])
            return
    raise AssertionError(f"no way to execute: {line}")


def run_module(words: list[str]) -> None:
    """Execute `python -m PACKAGE COMMAND ...` with few steps."""
    package, command, *arguments = words
    commands = importlib.import_module(f"{package}.commands").COMMANDS
    errors = io.StringIO()
    with contextlib.redirect_stderr(errors):
        added = map(os.path.expandvars, SHORTER.get((package, command), []))
        status = run_commands(package, commands, [command, *arguments, *added])
    assert status == 0, f"{' '.join(words)}: {errors.getvalue()}"


def run_script(words: list[str]) -> None:
    """Execute `python docs/examples/NAME.py ...` as a program."""
    script, *arguments = words
    with mock.patch.object(sys, "argv", [script, *arguments]):
        runpy.run_path(str(ROOT / script), run_name="__main__")


def check_target(words: list[str]) -> None:
    """Check that the Makefile has the targets of `make TARGET ...`; they are run elsewhere."""
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert {word for word in words if "=" not in word} <= targets, words


def check_extras(words: list[str]) -> None:
    """Check that `pip install` asks for this distribution, and for extras it has."""
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    known = set(re.findall(r"^(\w+) = \[", project.partition("[project.optional-dependencies]")[2], re.MULTILINE))
    for word in words:
        asked = re.fullmatch(r"saga-peft(?:\[([\w,]+)\])?", word)
        assert asked is not None, words
        assert set(filter(None, (asked[1] or "").split(","))) <= known, words


def serve_once(words: list[str]) -> None:
    """Serve the site of `python -m deploy serve SITE` and fetch its first page, the same bytes as on the disk."""
    (site,) = words
    with make_server(Path(site), 0) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        with urllib.request.urlopen(f"http://localhost:{server.server_port}/index.html", timeout=30) as answer:  # noqa: S310
            assert answer.read() == Path(site, "index.html").read_bytes()
        server.shutdown()
        thread.join()


RUNNERS: dict[tuple[str, ...], Callable[[list[str]], None]] = {
    ("python", "-m", "deploy", "serve"): serve_once,
    ("python", "-m"): run_module,
    ("python",): run_script,
    ("make",): check_target,
    ("pip", "install"): check_extras,
}


def write_recording(path: Path) -> None:
    """Write a minute of a person's movement as a user would have it."""
    session = generate(Population(subjects=1, sessions=1, bout_s=10.0, gaps_per_minute=0))[0]
    table = np.column_stack([session.times_s, session.signal])
    np.savetxt(path, table, delimiter=",", header="time,ax,ay,az,gx,gy,gz", comments="")


def main(pages: list[str]) -> None:
    """Execute pages given by path, each in a folder of its own: `python -m tests.pages docs/add/method.md`."""
    for page in pages:
        with tempfile.TemporaryDirectory() as folder:
            printed = walk(Path(page).resolve().read_text(encoding="utf-8"), Path(folder), shared=None)
        sys.stdout.write(f"{page}: {len(printed)} blocks\n")


if __name__ == "__main__":
    main(sys.argv[1:])
