"""ExecuTorch: one .pte file with a batch of 1 and XNNPACK's kernels, for its own runtime on Android and iOS.

Its memory is planned for the largest batch there may be, so a free batch of thousands would cost gigabytes: the file
takes one row, and more rows are given one after the other.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.export import ExportedProgram

from deploy.bundle_files import BundleError
from deploy.program import quiet_export
from deploy.target import EXPORT_TARGETS, ExportTarget, Written
from deploy.targets.program import operations
from shared_peft.atomic import replacing
from shared_peft.errors import ExportError
from shared_peft.packages import load_package

_WHERE = "export target executorch"


@EXPORT_TARGETS.register("executorch")
class ExecutorchTarget(ExportTarget):
    """One .pte file, run by ExecuTorch."""

    file_name = "model.pte"

    def check_packages(self) -> None:
        """Raise MissingPackageError where executorch is not installed."""
        self._load("executorch.exir")

    def write(self, program: ExportedProgram, path: Path, *, input_name: str, opset: int) -> Written:
        """Write ``program`` for a batch of 1; see `ExportTarget.write`.

        The operators counted are those of the program before XNNPACK takes them over.
        """
        exir = self._load("executorch.exir")
        xnnpack = self._load("executorch.backends.xnnpack.partition.xnnpack_partitioner")
        try:
            with quiet_export(), torch.no_grad():
                single = torch.export.export(program.module(), (_one_row(program),))
                lowered = exir.to_edge_transform_and_lower(single, partitioner=[xnnpack.XnnpackPartitioner()])
                buffer = lowered.to_executorch().buffer
        except Exception as error:  # executorch lets through whatever its passes raise
            reason = (" ".join(str(error).split()) or type(error).__name__)[:240]
            fix = "Replace the operation, or use --target onnx"
            raise ExportError(_WHERE, "every operation must have an ExecuTorch form", reason, fix) from error
        with replacing(path) as temporary:
            temporary.write_bytes(buffer)
        return Written(0, operations(program))

    def open(self, path: Path, *, threads: int = 0) -> Callable[[np.ndarray], np.ndarray]:
        """Return ExecuTorch's answer, row by row, as a function; see `ExportTarget.open`."""
        runtime = self._load("executorch.runtime")
        try:
            program = runtime.Runtime.get().load_program(path)
            kept = [program, program.load_method("forward")]  # a method outlives its program only to crash
        except (OSError, RuntimeError, ValueError) as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
            raise BundleError(path.name, "must be a program ExecuTorch loads", reason, "Export it again") from error

        def run(inputs: np.ndarray) -> np.ndarray:
            rows = torch.from_numpy(np.ascontiguousarray(inputs)).split(1)
            with torch.no_grad():
                return torch.cat([kept[1].execute([row])[0].clone() for row in rows]).numpy()

        return run

    def _load(self, name: str) -> Any:
        return load_package(name, _WHERE, extra="executorch")


def _one_row(program: ExportedProgram) -> torch.Tensor:
    """Return an example input with a batch of 1."""
    assert program.example_inputs is not None  # deploy.program always gives one
    return program.example_inputs[0][0][:1]
