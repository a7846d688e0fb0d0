"""A phone's processor family, emulated: aarch64 onnxruntime under qemu-user. Its time means nothing, its answers do."""

import functools
import os
import shutil
from pathlib import Path

from deploy.foreign import run_foreign
from deploy.model_files import ModelFile
from deploy.place import PLACES, Engine, Place, PlaceOptions, Reply

QEMU, ROOT_VARIABLE = "qemu-aarch64-static", "SAGA_PEFT_ARM64_ROOT"
PYTHON, SITE = "usr/bin/python3", "site"
_PROCESSOR = "cortex-a76"
_TITLE = f"aarch64 ({_PROCESSOR}, emulated)"


@PLACES.register("arm64")
class Arm64(Place):
    """onnxruntime for aarch64 under qemu-user-static, in a root folder whose `site` has its packages."""

    def engines(self, options: PlaceOptions) -> list[Engine]:
        """Return the one engine."""
        given = options.arm64_root or os.environ.get(ROOT_VARIABLE)
        root = None if given is None else Path(given).absolute()
        return [Engine(_TITLE, _missing(root), functools.partial(_answer, root or Path()))]


def _missing(root: Path | None) -> str:
    how = "python -m tests.benchmarks.arm64_root makes one"
    if shutil.which(QEMU) is None:
        return f"{QEMU} is not installed (Debian's package qemu-user-static)"
    if root is None:
        return f"no --arm64-root is given and ${ROOT_VARIABLE} is not set; {how}"
    lacking = [name for name in (PYTHON, f"{SITE}/onnxruntime", f"{SITE}/numpy") if not (root / name).exists()]
    return f"{root} has no {', '.join(lacking)}; {how}" if lacking else ""


def _answer(root: Path, file: ModelFile) -> Reply:
    qemu = shutil.which(QEMU) or QEMU
    environment = {"QEMU_CPU": _PROCESSOR, "PYTHONHOME": "/usr", "PYTHONPATH": f"/{SITE}", "OMP_NUM_THREADS": "1"}
    command = [qemu, "-L", str(root), str(root / PYTHON)]
    return Reply(run_foreign(_TITLE, command, environment, file)[0])
