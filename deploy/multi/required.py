"""The base graph for runtimes without adapter files: every tensor a task brings is an input that must be given.

onnxruntime's packages for JavaScript know no adapter files and pass over optional inputs, so the defaults leave the
graph, and each task's tensors are completed with them.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from deploy.graph_edit import read_graph
from deploy.multi.adapter_file import read_adapter
from deploy.multi.manifest import MultiManifest
from shared_peft.packages import load_package


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
    onnx, proto = (
        load_package("onnx", "a base without defaults", extra="deploy"),
        read_graph(bundle / manifest.model_file),
    )
    defaults = {each.name: onnx.numpy_helper.to_array(each) for each in split_defaults(proto)}
    tensors = {
        name: defaults | read_adapter(bundle / task.file, manifest.base_sha256) for name, task in manifest.tasks.items()
    }
    return RequiredGraph(proto.SerializeToString(deterministic=True), tensors)


def split_defaults(proto: Any) -> list[Any]:
    """Take the defaults of optional inputs out of a ModelProto, and return them."""
    inputs, stored = {each.name for each in proto.graph.input}, list(proto.graph.initializer)
    proto.graph.ClearField("initializer")
    proto.graph.initializer.extend(each for each in stored if each.name not in inputs)
    return [each for each in stored if each.name in inputs]
