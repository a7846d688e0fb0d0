"""One .onnx_adapter file a task, in onnxruntime's AdapterFormat, written, read again and compared."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from deploy.bundle_files import BundleError
from shared_peft.atomic import replacing
from shared_peft.errors import ExportError
from shared_peft.packages import load_package

SUFFIX = ".onnx_adapter"
ADAPTER_VERSION = 1
_WHERE = "adapter files"


def model_version(base_sha256: str) -> int:
    """Return the number that an adapter file carries of its base: the first 28 bits of the base's SHA-256.

    Example:
        >>> model_version("00000ff" + 57 * "0")
        255
    """
    return int(base_sha256[:7], 16)


def write_adapter(path: Path, tensors: Mapping[str, np.ndarray], base_sha256: str) -> None:
    """Write a task's tensors by the names of the graph's inputs, read them back and compare them bit by bit.

    Raises:
        ExportError: the file holds other values than it was given.
        MissingPackageError: onnxruntime is not installed.
    """
    onnxruntime = load_package("onnxruntime", _WHERE, extra="deploy")
    kept = {name: np.ascontiguousarray(values, dtype=np.float32) for name, values in tensors.items()}
    values = {name: onnxruntime.OrtValue.ortvalue_from_numpy(array) for name, array in kept.items()}
    adapter = onnxruntime.AdapterFormat()
    adapter.set_adapter_version(ADAPTER_VERSION)
    adapter.set_model_version(model_version(base_sha256))
    adapter.set_parameters(values)
    with replacing(path) as temporary:
        adapter.export_adapter(str(temporary))
        _compare(path.name, kept, read_adapter(temporary, base_sha256))
    del values  # not before the export: onnxruntime does not hold on to them, and writes whatever lies there then


def read_adapter(path: Path, base_sha256: str) -> dict[str, np.ndarray]:
    """Return an adapter file's tensors.

    Raises:
        BundleError: no adapter file, or one of another base.
    """
    onnxruntime = load_package("onnxruntime", _WHERE, extra="deploy")
    try:
        adapter = onnxruntime.AdapterFormat.read_adapter(str(path))
    except Exception as error:  # onnxruntime's exceptions share no base class
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
        raise BundleError(path.name, "must be an adapter file of onnxruntime", reason, "Export it again") from error
    if adapter.get_model_version() != model_version(base_sha256):
        must = f"must be an adapter of the base with sha256 {base_sha256[:7]}"
        raise BundleError(path.name, must, f"{adapter.get_model_version():07x}", "Use the adapters of this bundle")
    return {name: np.array(value.numpy()) for name, value in adapter.get_parameters().items()}


def load_adapter(path: Path) -> Any:
    """Return an adapter file as ``onnxruntime.LoraAdapter``; check it with `read_adapter` first."""
    adapter = load_package("onnxruntime", _WHERE, extra="deploy").LoraAdapter()
    adapter.Load(str(path))
    return adapter


def run_options(adapter: Any) -> Any:
    """Return run options with one active adapter; onnxruntime checks neither overlaps nor versions of several."""
    options = load_package("onnxruntime", _WHERE, extra="deploy").RunOptions()
    options.log_severity_level = 3  # errors only
    options.add_active_adapter(adapter)
    return options


def _compare(name: str, expected: Mapping[str, np.ndarray], found: Mapping[str, np.ndarray]) -> None:
    odd = [
        key
        for key in expected.keys() | found.keys()
        if key not in expected or key not in found or expected[key].tobytes() != found[key].tobytes()
    ]
    if odd:
        must = "must hold the tensors it was given"
        raise ExportError(name, must, f"others for {', '.join(sorted(odd)[:5])}", "Report onnxruntime's version")
