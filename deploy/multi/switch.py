"""A base graph with its adapters loaded: switching a task is choosing other run options."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from deploy.bundle_files import BundleError
from deploy.multi.adapter_file import load_adapter, read_adapter, run_options
from deploy.multi.graph import BASE_KEY
from deploy.session import open_session
from shared_peft.errors import AdapterError

_FIX = "Export the tasks again"


class AdapterSwitch:
    """One session and the adapters that fit it.

    Args:
        model: the base graph.
        adapters: adapter file by task name.
        base_sha256: of the base that graph and adapters must be of.
        threads: threads within an operator; 0 leaves the choice to onnxruntime.

    Raises:
        BundleError: a file of another base, or tensors that the graph has no place for.
        MissingPackageError: onnxruntime is not installed.
    """

    def __init__(self, model: Path, adapters: Mapping[str, Path], base_sha256: str, *, threads: int = 0) -> None:
        self.session = open_session(model, threads=threads)
        mark = self.session.get_modelmeta().custom_metadata_map.get(BASE_KEY, "")
        if mark != base_sha256:
            must = f"must be the graph of the base with sha256 {base_sha256[:12]}"
            raise BundleError(model.name, must, mark[:12] or "none", _FIX)
        places = {item.name: item.shape for item in self.session.get_overridable_initializers()}
        self._adapters, self._options = {}, {}  # onnxruntime does not hold on to an adapter: we do
        for name, path in adapters.items():
            check_fits(path.name, read_adapter(path, base_sha256), places)
            self._adapters[name] = load_adapter(path)
            self._options[name] = run_options(self._adapters[name])

    @property
    def names(self) -> tuple[str, ...]:
        """The tasks."""
        return tuple(self._adapters)

    def check(self, name: str) -> str:
        """Return a task's name.

        Raises:
            AdapterError: no such task.
        """
        if name not in self._adapters:
            raise AdapterError("adapter", f"must be one of {', '.join(self.names)}", repr(name), "Correct the name")
        return name

    def run(self, output: str, feeds: Mapping[str, np.ndarray], task: str) -> np.ndarray:
        """Return the logits, shape (batch, classes), of one task."""
        return self.session.run([output], dict(feeds), self._options[self.check(task)])[0]


def check_fits(file: str, tensors: Mapping[str, np.ndarray], places: Mapping[str, list[Any]]) -> None:
    """Check that a graph has a place for every tensor of an adapter, and that shared free sizes agree.

    Args:
        file: the adapter's name, for the error.
        tensors: by the names of the graph's inputs.
        places: shape of each optional input; a free dimension is its name.

    Raises:
        BundleError: a name the graph does not know, another shape, or two sizes for one rank.
    """
    sizes: dict[str, int] = {}
    for name, values in tensors.items():
        place = places.get(name)
        if place is None:
            raise BundleError(file, "must hold tensors that the graph has a place for", name, _FIX)
        wanted = [
            sizes.setdefault(size, got) if isinstance(size, str) else size
            for size, got in zip(place, values.shape, strict=False)
        ]
        if wanted != list(values.shape) or len(place) != values.ndim or 0 in values.shape:
            raise BundleError(f"{file}, {name}", f"must have shape {place}", values.shape, _FIX)
        if values.dtype != np.float32:
            raise BundleError(f"{file}, {name}", "must be float32, as the graph's input", values.dtype, _FIX)
        if not np.isfinite(values).all():
            raise BundleError(f"{file}, {name}", "must be finite", "NaN or infinite values", _FIX)
