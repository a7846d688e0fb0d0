"""onnxruntime sessions as this project opens them: on the CPU, errors only."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from deploy.bundle_files import BundleError
from deploy.external_data import refuse_external_data
from shared_peft.packages import load_package

_ERRORS_ONLY = 3
INPUT_TYPES = {"float32": "tensor(float)", "uint8": "tensor(uint8)"}  # what an input may be, in onnxruntime's words


def open_session(path: Path, *, threads: int = 0) -> Any:
    """Open an .onnx or .ort file for inference on the CPU.

    Args:
        path: the file.
        threads: threads within an operator; 0 leaves the choice to onnxruntime.

    Returns:
        An ``onnxruntime.InferenceSession``.

    Raises:
        MissingPackageError: onnxruntime is not installed.
        BundleError: the file cannot be loaded, or keeps tensors in other files.
    """
    onnxruntime = load_package("onnxruntime", "running an ONNX file", extra="deploy")
    if path.suffix == ".onnx" and path.is_file():
        refuse_external_data(path)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _ERRORS_ONLY
    options.intra_op_num_threads = threads
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exceptions share no base class
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
        raise BundleError(
            path.name, "must be an ONNX file that onnxruntime loads", reason, "Export it again"
        ) from error


def open_runner(path: Path, *, threads: int = 0) -> Callable[[np.ndarray], np.ndarray]:
    """Return the file's first output as a function of its one input, of the type it has; see `open_session`."""
    session = open_session(path, threads=threads)
    entry = session.get_inputs()[0]
    dtype = next((name for name, words in INPUT_TYPES.items() if words == entry.type), "float32")
    return lambda inputs: session.run(None, {entry.name: np.ascontiguousarray(inputs, dtype=dtype)})[0]
