"""Make the root of an aarch64 system for `deploy check --on arm64`: Debian's Python, numpy and onnxruntime.

Run: python -m tests.benchmarks.arm64_root FOLDER
Needs debootstrap (as root) and pip; qemu-user-static runs what it made: `--arm64-root FOLDER`.
"""

import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from zipfile import ZipFile

import tyro
from tqdm import tqdm
from tyro.conf import Positional

from deploy.places.arm64 import PYTHON, SITE

# onnxruntime reads its processor from here; without it the import ends in a segmentation fault under qemu-user.
CPUINFO = """\
processor\t: 0
Features\t: fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x3
CPU part\t: 0xd0b
CPU revision\t: 1

"""
_PLATFORMS = ("manylinux_2_28_aarch64", "manylinux_2_27_aarch64", "manylinux2014_aarch64")


@dataclass(frozen=True)
class Options:
    """Options of the command."""

    folder: Positional[Path]
    """Folder to make."""
    suite: str = "bookworm"
    """Debian's release."""
    mirror: str = "http://deb.debian.org/debian"
    """Where its packages lie."""


def main(options: Options) -> None:
    """Fetch and unpack packages and wheels; nothing of them is run."""
    folder = options.folder.absolute()
    stage = ["debootstrap", "--foreign", "--arch=arm64", "--variant=minbase", "--include=python3"]
    subprocess.run([*stage, options.suite, str(folder), options.mirror], check=True, stdout=sys.stderr)
    for package in tqdm(sorted((folder / "var/cache/apt/archives").glob("*.deb")), desc="unpack"):
        subprocess.run(["dpkg", "-x", str(package), str(folder)], check=True)
    found = re.search(r"3\.\d+", (folder / PYTHON).resolve().name)
    assert found, "Debian's python3 is a link to python3.x"
    unpack_wheels(folder / SITE, found[0])
    (folder / "proc").mkdir(exist_ok=True)
    (folder / "proc/cpuinfo").write_text(CPUINFO)
    sys.stdout.write(f"{folder}: aarch64, Python {found[0]}, onnxruntime {version('onnxruntime')}\n")


def unpack_wheels(site: Path, python: str) -> None:
    """Fetch numpy's and onnxruntime's wheels for aarch64 and unpack them."""
    platforms = [part for platform in _PLATFORMS for part in ("--platform", platform)]
    with tempfile.TemporaryDirectory() as scratch:
        fetch = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "--quiet",
            "--no-deps",
            "--only-binary=:all:",
            "--dest",
            scratch,
        ]
        wanted = [f"onnxruntime=={version('onnxruntime')}", "numpy"]
        subprocess.run([*fetch, *platforms, "--python-version", python, *wanted], check=True, stdout=sys.stderr)
        for wheel in Path(scratch).glob("*.whl"):
            ZipFile(wheel).extractall(site)


if __name__ == "__main__":
    main(tyro.cli(Options))
