"""Bundles that were changed, and adapters of another base, are refused before anything is answered."""

import dataclasses
import gc
import shutil

import numpy as np
import onnx
import onnxruntime
import pytest

from deploy import BundleError, BundleRunner
from deploy.bundle_files import MANIFEST, SUMS, describe_files
from deploy.layout import write_manifest
from deploy.multi import adapter_file
from deploy.multi.adapter_file import read_adapter, write_adapter
from deploy.multi.manifest import load_multi, verify_multi
from deploy.multi.switch import check_fits
from deploy.session import open_session
from shared_peft.errors import AdapterError, ExportError
from tests.deploy.multi.conftest import RUNS

OTHER_BASE = "f" * 64


def resign(bundle, **changes):
    """Make the hashes fit the files again, as somebody with bad intentions would."""
    manifest = dataclasses.replace(load_multi(bundle), **changes)
    files = {name: entry for name, entry in describe_files(bundle).items() if name not in (MANIFEST, SUMS)}
    write_manifest(bundle, dataclasses.replace(manifest, files=files))


def cut(path):
    path.write_bytes(path.read_bytes()[:-7])


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


@pytest.mark.parametrize("damage", [cut, flip, lambda path: path.unlink()], ids=["cut", "flipped bit", "missing"])
@pytest.mark.parametrize("name", ["model.onnx", "user.onnx_adapter", "manifest.json", "golden.safetensors"])
def test_a_file_that_was_changed_is_refused(copied, name, damage):
    damage(copied / name)
    with pytest.raises(BundleError, match=name.replace(".", r"\.")):
        BundleRunner(copied)


def test_adapters_that_changed_places_are_refused(copied):
    user, plain = copied / "user.onnx_adapter", copied / "plain.onnx_adapter"
    swapped = user.read_bytes(), plain.read_bytes()
    plain.write_bytes(swapped[0])
    user.write_bytes(swapped[1])
    with pytest.raises(BundleError, match=r"(user|plain)\.onnx_adapter: must have (\d+ bytes|SHA-256)"):
        BundleRunner(copied)
    resign(copied)
    with pytest.raises(BundleError, match=r"user\.onnx_adapter: must have 4 classes, as the manifest says, got 3"):
        BundleRunner(copied)


def test_an_adapter_of_another_task_is_found_by_the_golden_sample(copied):
    shutil.copyfile(copied / "activity.onnx_adapter", copied / "plain.onnx_adapter")
    resign(copied)
    with pytest.raises(BundleError, match=r"task plain: logits must be within 0\.0001"):
        BundleRunner(copied).check_golden()


def test_an_adapter_of_another_base_is_refused_even_where_every_hash_fits(copied, imu):
    path = copied / "user.onnx_adapter"
    write_adapter(path, read_adapter(path, imu.mark), OTHER_BASE)
    resign(copied)
    message = f"user.onnx_adapter: must be an adapter of the base with sha256 {imu.mark[:7]}, got fffffff"
    with pytest.raises(BundleError, match=message):
        BundleRunner(copied)


def test_a_graph_of_another_base_is_refused_even_where_every_hash_fits(copied, imu):
    model = onnx.load(copied / "model.onnx")
    onnx.helper.set_model_props(model, {"saga_peft.base_sha256": OTHER_BASE})
    onnx.save(model, copied / "model.onnx")
    resign(copied)
    with pytest.raises(BundleError, match=f"model.onnx: must be the graph of the base with sha256 {imu.mark[:12]}"):
        BundleRunner(copied)


def test_an_adapter_with_a_tensor_the_graph_does_not_know_is_refused(copied, imu):
    path = copied / "user.onnx_adapter"
    tensors = read_adapter(path, imu.mark)
    write_adapter(path, {**tensors, "encoder.unknown.core": np.ones((2, 2), np.float32)}, imu.mark)
    resign(copied)
    with pytest.raises(BundleError, match=r"must hold tensors that the graph has a place for, got encoder\.unknown"):
        BundleRunner(copied)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"a": np.ones((3, 2)), "b": np.ones((4, 5))}, "b: must have shape"),
        ({"a": np.ones((2, 2)), "b": np.ones((2, 5))}, "a: must have shape"),
        ({"a": np.ones((3, 2, 1))}, "a: must have shape"),
        ({"a": np.ones((3, 0))}, "a: must have shape"),
        ({"a": np.full((3, 2), np.nan)}, "a: must be finite"),
    ],
    ids=["two ranks", "another width", "another dimension", "no rank", "not finite"],
)
def test_tensors_that_do_not_fit_the_graph_are_refused(values, message):
    places = {"a": [3, "rank"], "b": ["rank", 5]}
    check_fits("x", {"a": np.ones((3, 7), np.float32), "b": np.ones((7, 5), np.float32)}, places)
    with pytest.raises(BundleError, match=message):
        check_fits("x", {name: array.astype(np.float32) for name, array in values.items()}, places)


def test_half_precision_adapters_do_not_fit_a_float32_graph():
    with pytest.raises(BundleError, match="a: must be float32, as the graph's input, got float16"):
        check_fits("x", {"a": np.ones((3, 2), np.float16)}, {"a": [3, "rank"]})


def test_manifest_that_names_no_base_is_refused(copied):
    manifest = load_multi(copied)
    write_manifest(copied, dataclasses.replace(manifest, base_sha256="../x"))
    with pytest.raises(BundleError, match=r"manifest.json.base_sha256: must be a SHA-256"):
        verify_multi(copied)


def test_two_tasks_of_one_file_are_refused(copied):
    manifest = load_multi(copied)
    tasks = {**manifest.tasks, "plain": manifest.tasks["activity"]}
    write_manifest(copied, dataclasses.replace(manifest, tasks=tasks))
    with pytest.raises(BundleError, match="each must have an adapter file of its own"):
        verify_multi(copied)


def test_an_unknown_task_is_refused_with_the_tasks_there_are(imu):
    with pytest.raises(AdapterError, match=f"must be one of {', '.join(RUNS)}, got 'sleep'"):
        BundleRunner(imu.folder).set_adapter("sleep")


def test_adapter_file_gives_back_every_bit_after_its_sources_are_gone(tmp_path):
    def write():
        generator = np.random.default_rng(0)
        tensors = {f"layer {i}.core": generator.normal(size=(i + 1, 64)).astype(np.float32) for i in range(40)}
        write_adapter(tmp_path / "a.onnx_adapter", tensors, OTHER_BASE)

    write()
    gc.collect()
    found, generator = read_adapter(tmp_path / "a.onnx_adapter", OTHER_BASE), np.random.default_rng(0)
    assert len(found) == 40
    for i in range(40):
        np.testing.assert_array_equal(found[f"layer {i}.core"], generator.normal(size=(i + 1, 64)).astype(np.float32))


def test_values_that_change_on_the_way_to_the_file_are_found_and_no_file_is_left(tmp_path, monkeypatch):
    monkeypatch.setattr(adapter_file, "read_adapter", lambda path, mark: {"a": np.ones(3, np.float32)})
    with pytest.raises(ExportError, match=r"x\.onnx_adapter: must hold the tensors it was given, got others for a"):
        write_adapter(tmp_path / "x.onnx_adapter", {"a": np.zeros(3, np.float32)}, OTHER_BASE)
    assert list(tmp_path.iterdir()) == []


def test_python_refuses_required_inputs_that_only_an_adapter_brings(conv, tmp_path):
    """Why every adapter tensor has a default: onnxruntime for Python looks for inputs in the feed alone."""
    model = onnx.load(conv.folder / "model.onnx")
    kept = [each for each in model.graph.initializer if each.name != "head.bias"]
    model.graph.ClearField("initializer")
    model.graph.initializer.extend(kept)
    onnx.save(model, tmp_path / "required.onnx")
    adapter = adapter_file.load_adapter(conv.folder / "small.onnx_adapter")
    session = open_session(tmp_path / "required.onnx")
    with pytest.raises(ValueError, match=r"Required inputs \(\['head\.bias'\]\) are missing"):
        session.run(None, {"image": np.zeros((1, 3, 12, 12), np.float32)}, adapter_file.run_options(adapter))


def test_a_file_that_is_no_adapter_is_refused(tmp_path):
    (tmp_path / "x.onnx_adapter").write_bytes(b"no adapter at all")
    with pytest.raises(BundleError, match="must be an adapter file of onnxruntime"):
        read_adapter(tmp_path / "x.onnx_adapter", OTHER_BASE)


def test_adapter_file_carries_the_bases_mark(imu):
    stored = onnxruntime.AdapterFormat.read_adapter(str(imu.folder / "user.onnx_adapter"))
    assert stored.get_model_version() == int(imu.mark[:7], 16)
