"""ONNX files that keep tensors elsewhere: found wherever such a tensor can stand, and never opened."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from deploy.bundle_files import BundleError
from deploy.external_data import refuse_external_data
from deploy.session import open_session

PLACES = (
    "initializer",
    "sparse values",
    "sparse indices",
    "node",
    "nodes",
    "branch",
    "branches",
    "function",
    "training",
)


def weight(*, external: bool) -> TensorProto:
    tensor = numpy_helper.from_array(np.ones(4, np.float32), "w")
    if external:
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value="../secret.bin")
    return tensor


def graph(nodes=(), tensors=()) -> onnx.GraphProto:
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [4])
    return helper.make_graph(list(nodes) or [helper.make_node("Identity", ["x"], ["y"])], "g", [value], [], tensors)


def model_with(place: str, tensor: TensorProto) -> onnx.ModelProto:
    """Put a tensor at one of the places where ONNX lets tensors stand."""
    model = helper.make_model(graph(), opset_imports=[helper.make_opsetid("", 18)])
    sparse = onnx.SparseTensorProto(values=tensor, dims=[4])
    if place == "sparse indices":
        sparse = onnx.SparseTensorProto(
            values=numpy_helper.from_array(np.ones(1, np.float32)), indices=tensor, dims=[4]
        )
    inner = graph(tensors=[tensor])
    if place == "initializer":
        model.graph.initializer.append(tensor)
    elif place.startswith("sparse"):
        model.graph.sparse_initializer.append(sparse)
    elif place == "training":
        model.training_info.add().algorithm.CopyFrom(inner)
    else:
        held = {"node": tensor, "nodes": [tensor], "branch": inner, "branches": [inner], "function": tensor}[place]
        node = helper.make_node("Constant", [], ["c"], value=held)
        if place == "function":
            model.functions.append(helper.make_function("d", "f", [], ["c"], [node], model.opset_import))
        else:
            model.graph.node.append(node)
    return model


@pytest.mark.parametrize("place", PLACES)
def test_a_tensor_in_another_file_is_refused_wherever_it_stands(place: str, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(model_with(place, weight(external=True)).SerializeToString())
    with pytest.raises(BundleError, match=r"model\.onnx: must hold all of its tensors, got tensors in other files"):
        open_session(path)
    path.write_bytes(model_with(place, weight(external=False)).SerializeToString())
    refuse_external_data(path)


def test_a_file_that_only_names_another_place_or_only_another_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    named, located = weight(external=True), weight(external=True)
    named.ClearField("data_location")
    located.ClearField("external_data")
    for tensor in (named, located):
        path.write_bytes(model_with("initializer", tensor).SerializeToString())
        with pytest.raises(BundleError, match="tensors in other files"):
            refuse_external_data(path)


def test_the_walk_agrees_with_onnx_on_an_exported_file_and_refuses_all_its_cuts(bundle_of) -> None:
    path = bundle_of("conv", "lora")[1] / "model.onnx"
    refuse_external_data(path)
    content, cut = path.read_bytes(), path.parent.parent / "cut.onnx"
    generator = np.random.default_rng(0)
    for size in generator.integers(0, len(content), 60).tolist():
        cut.write_bytes(content[:size])
        with pytest.raises(BundleError, match=r"cut\.onnx: must be an ONNX file that onnxruntime loads"):
            open_session(cut)
