"""What a stranger installs: every file the packages need and nothing of the tests; floors that were tested."""

import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("deploy", "imu_saga", "shared_peft", "vision")
BESIDE = (
    "README.md",
    "LICENSE",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "Makefile",
    "MANIFEST.in",
    "mkdocs.yml",
    "pyproject.toml",
)
UNTESTED = {"executorch"}  # asks for one torch of its own; its export tests use a stand-in where it is missing
BUILD = """
import sys
from setuptools import build_meta
out = sys.argv[1]  # which setuptools changes
build_meta.build_wheel(out)
build_meta.build_sdist(out)
"""


def files_of(folder: Path) -> set[str]:
    """Return every file of a folder by its path from the root, but what Python and tools leave behind."""
    found = {path.relative_to(ROOT) for path in (ROOT / folder).rglob("*") if path.is_file()}
    return {path.as_posix() for path in found if "__pycache__" not in path.parts}


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> dict[str, set[str]]:
    """Names in the wheel and in the source archive, built from a copy without a network."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    for name in (*PACKAGES, "tests", "docs", ".ci"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for path in ROOT.iterdir():
        if path.is_file() and path.suffix != ".lock":
            shutil.copy(path, source)
    command = [sys.executable, "-W", "ignore", "-c", BUILD, str(out)]
    done = subprocess.run(command, cwd=source, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    with zipfile.ZipFile(next(out.glob("*.whl"))) as wheel, tarfile.open(next(out.glob("*.tar.gz"))) as archive:
        entries = {entry.name.partition("/")[2] for entry in archive.getmembers() if entry.isfile()}
        return {"wheel": set(wheel.namelist()), "sdist": entries}


def test_the_wheel_holds_every_file_of_the_packages_and_nothing_else(built):
    held = {name for name in built["wheel"] if ".dist-info/" not in name}
    assert held == set().union(*map(files_of, map(Path, PACKAGES)))
    assert {f"{name}/py.typed" for name in PACKAGES} <= held
    assert "imu_saga/checkpoints/saga-small/model.safetensors" in held


def test_the_source_archive_holds_tests_guides_and_what_a_checkout_is_built_with(built):
    wanted = set().union(*map(files_of, map(Path, (*PACKAGES, "tests", "docs"))))
    wanted |= {*BESIDE, "SECURITY.md", "constraints.txt", "constraints-lowest.txt", ".ci/run"}
    assert wanted - built["sdist"] == set()
    assert not {name for name in built["sdist"] if name.endswith((".pyc", ".onnx")) or "runs/" in name}


def requirements() -> Iterator[Requirement]:
    """Yield every requirement of pyproject.toml that is a package of somebody else's, with a floor."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for lines in (project["dependencies"], *project["optional-dependencies"].values()):
        for requirement in map(Requirement, lines):
            if requirement.name != "saga-peft" and any(each.operator == ">=" for each in requirement.specifier):
                yield requirement


def test_the_lowest_constraints_are_the_floors_of_pyproject():
    floors = {
        each.name: Version(next(s.version for s in each.specifier if s.operator == ">=")) for each in requirements()
    }
    lines = (ROOT / "constraints-lowest.txt").read_text().splitlines()
    pinned = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    assert {name: Version(version) for name, version in pinned.items()} == {
        name: floor for name, floor in floors.items() if name not in UNTESTED
    }
    assert list(pinned) == sorted(pinned)


def test_the_tested_versions_are_not_below_the_floors():
    tested: dict[str, list[Version]] = {}
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            name, _, version = line.partition(";")[0].strip().partition("==")
            tested.setdefault(name, []).append(Version(version))
    for requirement in requirements():
        if requirement.name not in UNTESTED:
            assert all(version in requirement.specifier for version in tested[requirement.name]), requirement


def test_the_metadata_name_the_pythons_that_are_supported():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    named = [each.rpartition(" ")[2] for each in project["classifiers"] if "Python :: 3." in each]
    assert f">={named[0]}" == project["requires-python"]
    assert named == [f"3.{minor}" for minor in range(10, 10 + len(named))]
    assert f"{sys.version_info[0]}.{sys.version_info[1]}" in named
