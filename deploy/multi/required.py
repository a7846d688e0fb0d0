"""The base graph for runtimes without adapter files: every tensor a task brings is an input that must be given.

onnxruntime's packages for JavaScript know no adapter files and pass over optional inputs, so the defaults leave the
graph, and each task's tensors are completed with them.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from deploy.multi.adapter_file import read_adapter
from deploy.multi.manifest import MultiManifest
from deploy.packages import load_package


@dataclass(frozen=True, eq=False)
class RequiredGraph:
    """The graph, and what each task feeds it.

    Args:
        model: bytes of the .onnx file.
        tensors: by task the tensors by the names of the graph's inputs, all of them, float32; zeros stand for a layer
            that a task does not adapt.
    """

    model: bytes
    tensors: dict[str, dict[str, np.ndarray]]


def required_graph(bundle: Path, manifest: MultiManifest) -> RequiredGraph:
    """Return a verified bundle's base without defaults.

    Raises:
        BundleError: an adapter file that cannot be read, or one of another base.
        MissingPackageError: onnx or onnxruntime is not installed.
    """
    onnx = load_package("onnx", "a base without defaults")
    proto = onnx.load(str(bundle / manifest.model_file))
    inputs = {each.name for each in proto.graph.input}
    kept = [each for each in proto.graph.initializer if each.name not in inputs]
    defaults = {e.name: onnx.numpy_helper.to_array(e) for e in proto.graph.initializer if e.name in inputs}
    proto.graph.ClearField("initializer")
    proto.graph.initializer.extend(kept)
    tensors = {
        name: defaults | read_adapter(bundle / task.file, manifest.base_sha256) for name, task in manifest.tasks.items()
    }
    return RequiredGraph(proto.SerializeToString(deterministic=True), tensors)
