"""onnxruntime sessions as this project opens them: on the CPU, errors only."""

from pathlib import Path
from typing import Any

from deploy.manifest import BundleError
from deploy.packages import load_package

_ERRORS_ONLY = 3


def open_session(path: Path, *, threads: int = 0) -> Any:
    """Open an ONNX file for inference on the CPU.

    Args:
        path: the .onnx file.
        threads: threads within an operator; 0 leaves the choice to onnxruntime.

    Returns:
        An ``onnxruntime.InferenceSession``.

    Raises:
        MissingPackageError: onnxruntime is not installed.
        BundleError: the file cannot be loaded.
    """
    onnxruntime = load_package("onnxruntime", "running an ONNX file")
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
