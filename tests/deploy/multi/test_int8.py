"""The base in int8: smaller, every slot kept, adapters untouched, each task measured and held to its gate."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from deploy import BundleRunner
from deploy.multi import export_multi
from deploy.multi.int8 import BaseFiles, make_int8
from deploy.session import open_session
from shared_peft.errors import ExportError


def without_data(imu):
    """The tasks, their runs' recordings gone: int8 is measured on the examples."""
    return [replace(task, trained=replace(task.trained, validation=None)) for task in imu.tasks.values()]


@pytest.fixture(scope="module")
def bundle(imu, tmp_path_factory):
    """The bundle of the three runs with its int8 base, whatever a task loses."""
    out = tmp_path_factory.mktemp("int8") / "bundle"
    export_multi(imu.mark, without_data(imu), out, int8="auto", max_drop=100)
    return out


def test_the_int8_base_has_every_place_for_an_adapter_and_no_quantised_one(bundle):
    sessions = [open_session(bundle / name, threads=1) for name in ("model.onnx", "model.int8.onnx")]
    places = [{each.name: each.shape for each in session.get_overridable_initializers()} for session in sessions]
    assert places[0] == places[1]
    graph = onnx.load(bundle / "model.int8.onnx").graph
    integer = [node for node in graph.node if node.op_type == "MatMulInteger"]
    stored = {each.name: each.data_type for each in graph.initializer}
    assert len(integer) >= 4
    assert all(stored[node.input[1]] == onnx.TensorProto.INT8 for node in integer)
    assert not {name for node in integer for name in node.input} & places[0].keys()


@pytest.mark.parametrize("task", ["activity", "user", "plain"])
def test_what_the_manifest_says_of_a_task_is_what_the_runner_answers(bundle, imu, task):
    full, small = BundleRunner(bundle, threads=1), BundleRunner(bundle, threads=1, variant="int8")
    inputs = imu.tasks[task].trained.examples.numpy()
    expected, found = full.logits_of(task, inputs), small.logits_of(task, inputs)
    measured = small.manifest.variants["int8"].measured
    assert measured[f"{task}: rows"] == len(inputs)
    assert measured[f"{task}: max_abs_difference"] == pytest.approx(np.abs(found - expected).max(), rel=1e-3)
    agreement = (found.argmax(1) == expected.argmax(1)).mean()
    assert measured[f"{task}: top1_agreement"] == pytest.approx(agreement)
    assert 0 < np.abs(found - expected).max() < 0.1 * np.ptp(expected)


def test_weights_are_a_quarter_and_the_rest_is_no_larger(bundle):
    sizes = [_weight_bytes(onnx.load(bundle / name)) for name in ("model.onnx", "model.int8.onnx")]
    assert sizes[1] < 0.5 * sizes[0]


def _weight_bytes(model):
    inputs = {each.name for each in model.graph.input}
    return sum(onnx.numpy_helper.to_array(t).nbytes for t in model.graph.initializer if t.name not in inputs)


def test_a_task_that_loses_more_than_allowed_is_named_with_its_number(bundle, imu, tmp_path, monkeypatch):
    folder = Path(shutil.copytree(bundle, tmp_path / "bundle"))
    files = BaseFiles(folder / "model.onnx", folder / "model.onnx", imu.mark)
    monkeypatch.setattr("deploy.multi.int8.write_int8", lambda files, path: None)  # it is there already
    losses = {"user": 0.75, "activity": 0.99, "plain": 1.0}
    tasks = {task.name: task for task in without_data(imu)}
    agreements = iter(losses.values())

    def measured(expected, got, labels):
        return {"rows": 8.0, "max_abs_difference": 1.0, "top1_agreement": next(agreements)}

    monkeypatch.setattr("deploy.multi.int8.compare_rows", measured)
    with pytest.raises(ExportError, match="int8, task user gate, .* must be at most 1 points, got 25"):
        make_int8([tasks[name] for name in losses], files, max_drop=1.0)
    agreements = iter(losses.values())
    entry = make_int8([tasks[name] for name in losses], files, max_drop=30.0)
    assert entry.measured["top1_agreement"] == entry.measured["user: top1_agreement"] == 0.75
    assert entry.measured["activity: top1_agreement"] == 0.99
