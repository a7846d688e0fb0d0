"""What an export target is, and the registry that names them."""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch.export import ExportedProgram

from shared_peft.registry import Registry

INPUT_DTYPE = "float32"
OUTPUT_NAME = "logits"


@dataclass(frozen=True)
class Written:
    """What a target wrote.

    Args:
        opset: operator set version of the file; 0 where the format has none.
        operations: how often each operator occurs in the file's graph.
    """

    opset: int
    operations: Counter[str]

    @property
    def nodes(self) -> int:
        """Number of nodes in the graph."""
        return self.operations.total()


class ExportTarget(ABC):
    """A file format that a merged model can be written to and run from.

    Each target is one file of `deploy.targets` whose class registers itself; the command line, the gates and the
    tests iterate the registry.
    """

    file_name: str

    @abstractmethod
    def check_packages(self) -> None:
        """Raise MissingPackageError, naming the extra, where a package the target needs is not installed."""

    @abstractmethod
    def write(self, program: ExportedProgram, path: Path, *, input_name: str, opset: int) -> Written:
        """Write ``program`` to ``path`` as one file.

        Args:
            program: a merged model with a dynamic batch.
            path: the file to write.
            input_name: name the one input gets.
            opset: operator set version asked for.

        Returns:
            What was written.

        Raises:
            ExportError: the program cannot be written in this format, or not as asked.
        """

    @abstractmethod
    def open(self, path: Path, *, threads: int = 0) -> Callable[[np.ndarray], np.ndarray]:
        """Return a function from inputs (batch, *input_shape) to logits (batch, classes), float32.

        Args:
            path: a file this target wrote.
            threads: threads to compute with; 0 leaves the choice to the runtime.
        """


EXPORT_TARGETS = Registry[type[ExportTarget]]("export target")
