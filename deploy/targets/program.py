"""torch.export's program: one .pt2 file that PyTorch itself runs, and that further compilers start from.

Who is trusted: PyTorch reads a .pt2 file as a program. It unpickles objects that the file names and evaluates
expressions in it, so a file made for it can run any code (`torch.export.load` warns of it). Hashes in a bundle tell
that a file was damaged, not who wrote it. Therefore `BundleRunner` opens ONNX files alone, which hold nothing but
numbers and operators, and `ProgramTarget.open` is for files of one's own.
"""

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch.export import ExportedProgram

from deploy.bundle_files import BundleError
from deploy.program import quiet_export
from deploy.target import EXPORT_TARGETS, ExportTarget, Written
from shared_peft.atomic import replacing
from shared_peft.weights import READ_ERRORS


@EXPORT_TARGETS.register("program")
class ProgramTarget(ExportTarget):
    """One .pt2 file, run by PyTorch."""

    file_name = "model.pt2"

    def check_packages(self) -> None:
        """Return: PyTorch is always there."""

    def write(self, program: ExportedProgram, path: Path, *, input_name: str, opset: int) -> Written:
        """Write ``program`` without its stack traces, which hold local paths; see `ExportTarget.write`."""
        with replacing(path) as temporary, temporary.open("wb") as stream, _without_traces(program), quiet_export():
            torch.export.save(program, stream)
        return Written(0, operations(program))

    def open(self, path: Path, *, threads: int = 0) -> Callable[[np.ndarray], np.ndarray]:
        """Return PyTorch's answer as a function; it uses PyTorch's own number of threads.

        Only for files of one's own: reading one may run code in it.

        Raises:
            BundleError: no such file, or one PyTorch cannot read.
        """
        try:
            with path.open("rb") as stream, quiet_export():
                module = torch.export.load(stream).module()
        except READ_ERRORS as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
            raise BundleError(path.name, "must be a program PyTorch loads", reason, "Export it again") from error

        def run(inputs: np.ndarray) -> np.ndarray:
            with torch.no_grad():
                return module(torch.from_numpy(np.ascontiguousarray(inputs))).numpy()

        return run


def operations(program: ExportedProgram) -> Counter[str]:
    """Return how often each operator occurs in a program."""
    calls = (node.target for node in program.graph.nodes if node.op == "call_function")
    return Counter(getattr(call, "__name__", str(call)) for call in calls)


@contextlib.contextmanager
def _without_traces(program: ExportedProgram) -> Iterator[None]:
    """Take what only helps debugging off the nodes for a while: everything but the values' shapes and types."""
    kept = [(node, node.meta) for node in program.graph.nodes]
    for node, meta in kept:
        node.meta = {name: meta[name] for name in ("val", "tensor_meta") if name in meta}
    try:
        yield
    finally:
        for node, meta in kept:
            node.meta = meta
