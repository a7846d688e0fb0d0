"""Which tests run which line, and whether those of a line notice that it was changed."""

import contextlib
import gc
import importlib
import json
import math
import os
import resource
import signal
import sys
import time
import traceback
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import coverage
import pytest

QUIET = [
    "-q",
    "-p",
    "no:cacheprovider",
    "-p",
    "no:xdist",
    "--no-header",
    "--tb=short",
    "-Wignore::pytest.PytestAssertRewriteWarning",
]
OURS = ("tests", "shared_peft", "vision", "imu_saga", "deploy")
COLLECTION_S = 0.004  # ours: to collect one test of a file
FAILED = 70  # exit status where the tests could not be run at all
KILLED, SURVIVED, TIMED_OUT, BROKEN, NOT_RUN = "killed", "survived", "timed out", "broken", "no test runs it"


@dataclass(frozen=True)
class Observed:
    """What one run of all tests showed.

    Args:
        seconds: duration by test.
        tests: numbers of the tests (their place in ``seconds``) by file and line; line "0" has all of the file's.
        modules: what the tests import beside the tree.
    """

    seconds: dict[str, float]
    tests: dict[str, dict[str, list[int]]]
    modules: list[str]

    def of(self, file: str, line: int, most_seconds: float) -> list[list[str]]:
        """Return the tests that run a line, those of one file together and the quick files first.

        A line that runs on import has all tests of its file. Tests beyond ``most_seconds`` are left out: the quick ones
        stay, and one of every function before a second one.
        """
        names, lines = list(self.seconds), self.tests.get(file, {})
        found = [names[number] for number in lines.get(str(line)) or lines.get("0", [])]
        seen: Counter[str] = Counter()
        ranked = []
        for name in sorted(found, key=lambda name: (self.seconds[name], name)):
            function = name.partition("[")[0]
            ranked.append((seen[function], self.seconds[name], name))
            seen[function] += 1
        chosen, spent = [], 0.0
        for _, seconds, name in sorted(ranked):
            if spent + seconds <= most_seconds:
                chosen.append(name)
                spent += seconds
        return sorted(_by_file(chosen).values(), key=self._cost)

    def _cost(self, names: list[str]) -> float:
        """Return about how long tests of one file take, with the time to collect the whole file [s]."""
        file = _file_of(names[0])
        collected = sum(_file_of(name) == file for name in self.seconds)
        return COLLECTION_S * collected + sum(self.seconds[name] for name in names)


def _file_of(name: str) -> str:
    return name.partition("::")[0]


def _by_file(names: list[str]) -> dict[str, list[str]]:
    files: defaultdict[str, list[str]] = defaultdict(list)
    for name in names:
        files[_file_of(name)].append(name)
    return files


class _Watch:
    """Switches the context of coverage at every test, and takes its time."""

    def __init__(self, measured: coverage.Coverage) -> None:
        self.measured, self.seconds = measured, {}

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        self.measured.switch_context(item.nodeid)
        start = time.perf_counter()
        try:
            return (yield)
        finally:
            self.seconds[item.nodeid] = time.perf_counter() - start
            self.measured.switch_context("")


def observe(root: Path, packages: list[str], tests: list[str], out: Path) -> Observed:
    """Run all tests once in a tree and write what they run to ``out``; an earlier one there is read instead.

    What they import beside the tree is imported here, once instead of in every child.
    """
    if not out.is_file():
        forked(lambda: _observe(root, packages, tests, out), log=out.with_suffix(".log"))
    if not out.is_file():
        sys.exit(f"The tests must pass before anything is changed; {out.with_suffix('.log')} says what failed")
    observed = Observed(**json.loads(out.read_text("utf-8")))
    for name in observed.modules:
        with contextlib.suppress(Exception), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            importlib.import_module(name)
    return observed


def _observe(root: Path, packages: list[str], tests: list[str], out: Path) -> int:
    _enter(root, compile_files=True)
    measured = coverage.Coverage(data_file=None, include=[f"{root}/{package}/*" for package in packages])
    watch = _Watch(measured)
    measured.start()
    status = pytest.main([*QUIET, *tests], plugins=[watch])
    measured.stop()
    if status:
        return status
    data, numbers = measured.get_data(), {name: number for number, name in enumerate(watch.seconds)}
    by_file: dict[str, dict[str, list[int]]] = {}
    for file in data.measured_files():
        lines: defaultdict[str, set[int]] = defaultdict(set)
        for line, contexts in data.contexts_by_lineno(file).items():
            ran = {numbers[name] for name in contexts if name in numbers}
            lines["0"] |= ran
            lines[str(line)] |= ran if "" not in contexts else set()
        by_file[str(Path(file).relative_to(root))] = {line: sorted(ran) for line, ran in lines.items()}
    modules = [name for name in sys.modules if name.partition(".")[0] not in OURS]
    out.write_text(json.dumps(asdict(Observed(watch.seconds, by_file, modules))), "utf-8")
    return 0


class _Chosen:
    """Keeps the chosen tests only, in their order."""

    def __init__(self, names: list[str]) -> None:
        self.places = {name: place for place, name in enumerate(names)}

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items[:] = sorted(
            (item for item in items if item.nodeid in self.places), key=lambda item: self.places[item.nodeid]
        )


def verdict(root: Path, file: str, source: str, tests: list[list[str]], most_seconds: float) -> str:
    """Run tests on a tree with one file changed, and put the file back.

    Args:
        root: a copy of the tree that nobody else uses.
        file: path below it.
        source: the changed file.
        tests: the tests, those of one file together.
        most_seconds: processor time they may take before the mutant counts as hanging [s].
    """
    if not tests:
        return NOT_RUN
    path = root / file
    original, times = path.read_text("utf-8"), path.stat()
    path.write_text(source, "utf-8")
    try:
        status = forked(lambda: _run(root, tests), most_seconds, log=root.with_suffix(".log"))
    finally:
        path.write_text(original, "utf-8")
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))  # its compiled file is good again
    if status in (None, -signal.SIGXCPU, FAILED):
        return TIMED_OUT if status != FAILED else BROKEN
    return KILLED if status else SURVIVED


def _run(root: Path, tests: list[list[str]]) -> int:
    """Run file after file, up to the first test that fails."""
    _enter(root)
    statuses = (pytest.main(["-x", *QUIET, _file_of(names[0])], plugins=[_Chosen(names)]) for names in tests)
    return next((int(status) for status in statuses if status), 0)


def _enter(root: Path, *, compile_files: bool = False) -> None:
    """Make a tree the one that is imported; no compiled file of a mutant is left behind."""
    os.chdir(root)
    sys.dont_write_bytecode = not compile_files
    os.environ |= {"PYTHONDONTWRITEBYTECODE": "" if compile_files else "1", "PYTHONPATH": str(root)}
    sys.path[:] = [str(root), *(part for part in sys.path if part not in ("", str(root)))]
    for name in [name for name in sys.modules if name.partition(".")[0] in OURS]:
        del sys.modules[name]


def forked(work: Callable[[], Any], most_seconds: float | None = None, log: Path = Path(os.devnull)) -> int | None:
    """Do work in a child process group that writes to ``log``; return its exit status, None where it never ends.

    ``most_seconds`` of processor time end it by SIGXCPU, ten times as much of any time by SIGKILL.
    """
    gc.collect()
    child = os.fork()
    if child == 0:
        os.setsid()
        if most_seconds is not None:
            resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(most_seconds), resource.RLIM_INFINITY))
        quiet = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        os.dup2(quiet, 1)
        os.dup2(quiet, 2)
        status = FAILED
        try:
            status = int(work() or 0)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    end = None if most_seconds is None else time.monotonic() + 10 * most_seconds
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            break
        if end is not None and time.monotonic() > end:
            os.killpg(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return None
        time.sleep(0.02)
    return os.waitstatus_to_exitcode(status)
