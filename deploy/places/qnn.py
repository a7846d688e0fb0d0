"""Qualcomm's NPU, emulated by the package onnxruntime-qnn: in a process of its own, as some models abort it."""

import importlib.util
import os
import sys

from deploy.foreign import run_foreign
from deploy.model_files import ModelFile
from deploy.place import PLACES, Engine, Place, PlaceOptions, Reply

_PACKAGE, _TITLE = "onnxruntime_qnn", "Qualcomm NPU (emulated)"
_LEEWAY = 0.02  # ours: of the largest logit; the NPU computes fp32 in half precision


@PLACES.register("qnn")
class Qnn(Place):
    """Qualcomm's emulated NPU, with the package onnxruntime-qnn, which is proprietary and never comes with this one."""

    def engines(self, options: PlaceOptions) -> list[Engine]:
        """Return the one engine."""
        installed = importlib.util.find_spec(_PACKAGE) is not None
        missing = "" if installed else "the package onnxruntime-qnn is not installed (optional, Qualcomm's licence)"
        return [Engine(_TITLE, missing, _answer, leeway=_LEEWAY, refusal=_refusal)]


def _refusal(file: ModelFile) -> str:
    return "the plugin reads .onnx files only" if file.path.suffix == ".ort" else ""


def _answer(file: ModelFile) -> Reply:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    logits, runs = run_foreign(_TITLE, [sys.executable], environment, file, plugin=True)
    on_npu = sum(count for name, count in runs.items() if name.startswith("QNN"))
    note = f"{on_npu} of {sum(runs.values())} node runs on the NPU"
    return Reply(logits, note=note if on_npu else f"{note}: accelerators want the fixed-batch file")
