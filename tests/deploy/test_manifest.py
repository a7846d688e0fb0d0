"""A damaged, edited or hostile bundle is refused with the file's name."""

import json
import random
import shutil

import pytest

from deploy import BundleError, BundleRunner, load_manifest, verify_bundle
from deploy.bundle_files import MANIFEST, SUMS
from shared_peft.atomic import sha256_of


def _edit(bundle, change, *, resign=False):
    """Change manifest.json; with ``resign`` put its new hash into SHA256SUMS, as a careful forger would."""
    path = bundle / MANIFEST
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))
    if resign:
        lines = [line for line in (bundle / SUMS).read_text().splitlines() if not line.endswith(MANIFEST)]
        (bundle / SUMS).write_text("\n".join([*lines, f"{sha256_of(path)}  {MANIFEST}"]) + "\n")


def test_fresh_bundle_verifies(bundle_copy):
    assert verify_bundle(bundle_copy) == load_manifest(bundle_copy)


def test_edited_manifest_is_refused(bundle_copy):
    _edit(bundle_copy, lambda values: values["classes"].reverse())
    with pytest.raises(BundleError, match="manifest.json: must have the hash that SHA256SUMS lists"):
        verify_bundle(bundle_copy)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: v.update(schema_version=3), "schema_version must be 2, got 3"),
        (lambda v: v.update(extra=1), "key must be one of .*, got 'extra'"),
        (lambda v: v.pop("classes"), "key 'classes' must be given"),
        (lambda v: v.update(classes=[]), "must name at least one class"),
        (lambda v: v.update(classes=["a", 1]), r"classes\[1\]: must be str"),
        (lambda v: v["input"].update(shape=[3, -1, 12]), "sizes must be positive"),
        (lambda v: v["input"].update(dtype="int8"), "must be one of 'float32', 'uint8'"),
        (lambda v: v["input"].update(free_axes=[3]), "must be axes of the shape, each once"),
        (lambda v: v["input"].update(free_axes=[1, 1]), "must be axes of the shape, each once"),
        (lambda v: v.update(model_file="../model.onnx"), r"must list \.\./model\.onnx"),
        (lambda v: v["files"].pop("golden.safetensors"), "must list golden.safetensors"),
        (lambda v: v["files"].update({"../x": v["files"]["model.onnx"]}), "must be a plain file name, got '../x'"),
        (lambda v: v["files"].update({"/etc/passwd": v["files"]["model.onnx"]}), "must be a plain file name"),
        (lambda v: v["files"]["model.onnx"].update(sha256="0" * 64), "got others for model.onnx"),
        (lambda v: v["files"]["model.onnx"].update(size_bytes=7), "model.onnx: must have 7 bytes"),
    ],
)
def test_resigned_manifest_that_does_not_fit_is_refused(bundle_copy, change, message):
    _edit(bundle_copy, change, resign=True)
    with pytest.raises(BundleError, match=message):
        verify_bundle(bundle_copy)


def test_classes_of_another_head_are_refused_when_the_model_is_loaded(bundle_copy):
    _edit(bundle_copy, lambda values: values["classes"].append("fly"), resign=True)
    with pytest.raises(BundleError, match="as the manifest says"):
        BundleRunner(bundle_copy)


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "a/b", "..", ".hidden", "a\\b", "C:x"])
def test_path_traversal_in_the_sums_is_refused(bundle_copy, name):
    with (bundle_copy / SUMS).open("a") as stream:
        stream.write(f"{'0' * 64}  {name}\n")
    with pytest.raises(BundleError, match="a plain file name, each name once"):
        verify_bundle(bundle_copy)


def test_link_in_place_of_a_file_is_refused(bundle_copy, tmp_path):
    shutil.move(bundle_copy / "model.onnx", tmp_path / "elsewhere.onnx")
    (bundle_copy / "model.onnx").symlink_to(tmp_path / "elsewhere.onnx")
    with pytest.raises(BundleError, match="model.onnx: must be a file in the bundle's folder, got a link"):
        verify_bundle(bundle_copy)


@pytest.mark.parametrize(
    "name", ["README.md", "SHA256SUMS", "golden.safetensors", "manifest.json", "model.onnx", "parity.json"]
)
def test_missing_file_is_refused_by_name(bundle_copy, name):
    (bundle_copy / name).unlink()
    with pytest.raises(BundleError, match=f"{name}: must be a file in the bundle's folder, got no such file"):
        verify_bundle(bundle_copy)


def test_no_bundle_at_all_is_refused(tmp_path):
    with pytest.raises(BundleError, match="got no such file"):
        verify_bundle(tmp_path / "nowhere")


def test_swapped_files_are_refused(bundle_copy):
    model, golden = bundle_copy / "model.onnx", bundle_copy / "golden.safetensors"
    model.rename(bundle_copy / "kept")
    golden.rename(model)
    (bundle_copy / "kept").rename(golden)
    with pytest.raises(BundleError, match="must have .* bytes"):
        verify_bundle(bundle_copy)


def test_three_hundred_random_damages_are_all_refused(bundle_copy):
    chance = random.Random(7)
    names = sorted(path.name for path in bundle_copy.iterdir())
    for _ in range(300):
        path = bundle_copy / chance.choice(names)
        whole = path.read_bytes()
        place = chance.randrange(len(whole))
        damages = (
            whole[:place],
            whole[:place] + bytes([whole[place] ^ (1 << chance.randrange(8))]) + whole[place + 1 :],
            whole + b"x",
            b"",
        )
        path.write_bytes(chance.choice(damages))
        with pytest.raises(BundleError):
            verify_bundle(bundle_copy)
        path.write_bytes(whole)
    verify_bundle(bundle_copy)


@pytest.mark.parametrize("change", [{"dtype": "uint8"}, {"free_axes": [1, 2]}, {"shape": [3, 12, 13]}])
def test_input_that_is_not_the_models_is_refused_when_the_model_is_loaded(bundle_copy, change):
    _edit(bundle_copy, lambda values: values["input"].update(change), resign=True)
    with pytest.raises(BundleError, match="inputs and outputs must be .*, as the manifest says"):
        BundleRunner(bundle_copy)
