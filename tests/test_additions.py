"""Adding a thing is adding a file: one for every registry, into a copy of the house, as the pages of docs/add show."""

import functools
import importlib
import json
import os
import pkgutil
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from shared_peft.registry import Registry
from tests.pages import DOCS, ROOT, Block, blocks_of

PACKAGES = ("shared_peft", "vision", "imu_saga", "deploy")
PAGES = sorted((DOCS / "add").glob("*.md"))
BATTERIES = {  # for the five that have a page of their own: its tests, and which of them
    "tests/shared_peft/test_battery.py": "gain and (linear or conv2d)",
    "tests/vision/test_backbones.py": "patch_net and not merge",
    "tests/imu_saga/test_datasets.py": "pocket_log",
    "tests/imu_saga/test_masking.py": "half",
    "tests/deploy/targets/test_battery.py": "onnx_gz",
}
TIMEOUT_S = 500


@functools.cache
def additions() -> dict[str, Block]:
    """The files that the pages show, by path."""
    found = [block for page in PAGES for block in blocks_of(page.read_text(encoding="utf-8")) if block.title]
    assert len({block.title for block in found}) == len(found)
    return {block.title: block for block in found}


def registries() -> dict[str, tuple[str, ...]]:
    """The names in every registry of the packages, by the registry's place."""
    found = {}
    for package in PACKAGES:
        path = importlib.import_module(package).__path__
        for module in pkgutil.walk_packages(path, f"{package}."):
            if not module.name.endswith("__main__"):
                importlib.import_module(module.name)
    for name, module in sorted(sys.modules.items()):
        if name.split(".")[0] in PACKAGES:
            for entry, value in vars(module).items():
                if isinstance(value, Registry):
                    found.setdefault(id(value), (f"{name}.{entry}", value.names()))
    return dict(found.values())


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the house with every file of the pages added, and nothing else changed."""
    copy = tmp_path_factory.mktemp("house")
    skipped = shutil.ignore_patterns("__pycache__", "runs")
    for folder in (*PACKAGES, "tests", "docs"):
        shutil.copytree(ROOT / folder, copy / folder, ignore=skipped)
    for name in ("pyproject.toml", "README.md", "Makefile"):
        shutil.copy(ROOT / name, copy / name)
    for path, block in additions().items():
        target = copy / path
        assert target.parent.is_dir(), f"{path}: no such folder"
        before = target.read_text(encoding="utf-8") + "\n\n" if target.exists() else ""
        target.write_text(before + block.code, encoding="utf-8")
    return copy


def run_in(house: Path, *words: str) -> str:
    """Run Python in the copy and return what it printed."""
    environment = {**os.environ, "PYTHONPATH": str(house), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *words],
        cwd=house,
        env=environment,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return done.stdout


def test_one_file_adds_one_name_to_every_registry_and_the_tables_know_it(house: Path) -> None:
    script = "import json; from tests.test_additions import *; from tests.registry_tables import registry_tables; "
    script += "print(json.dumps([registries(), registry_tables()]))"
    after, tables = json.loads(run_in(house, "-c", script).splitlines()[-1])
    before = registries()
    assert after.keys() == before.keys()
    added = {place: set(after[place]) - set(names) for place, names in before.items()}
    assert {place: sorted(names) for place, names in added.items() if len(names) != 1} == {}
    assert len(added) == len(additions())
    for name in ("gain", "patch_net", "pocket_log", "half", "onnx_gz"):
        assert f"| `{name}` |" in tables


def test_what_the_pages_show_beside_the_files_runs(house: Path) -> None:
    pages = [str(page.relative_to(ROOT)) for page in PAGES]
    assert len(run_in(house, "-m", "tests.pages", *pages).splitlines()) == len(pages)


def test_the_batteries_find_what_was_added_and_it_passes(house: Path) -> None:
    options = ("-q", "-x", "-p", "no:cacheprovider", "-p", "no:xdist")
    wanted = " or ".join(f"({words})" for words in BATTERIES.values())
    printed = run_in(house, "-m", "pytest", *options, "-k", wanted, *BATTERIES, "--durations=5", "-rA")
    for words in BATTERIES.values():
        assert f"[{words.split()[0]}" in printed, words
