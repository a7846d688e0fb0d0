"""The runner answers with class names, checks its input, and runs the golden sample."""

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from deploy import BundleError, BundleRunner, verify_bundle
from deploy.golden import GOLDEN, read_golden
from deploy.layout import write_manifest
from shared_peft.errors import DataError, MissingPackageError
from tests.deploy.toys import CLASSES


def test_predictions_are_pytorchs_softmax_and_names(bundle_of):
    trained, bundle = bundle_of("sequence", "lora_tsd")
    with torch.no_grad():
        expected = trained.model(trained.examples).softmax(-1).numpy()
    answers = BundleRunner(bundle).predict(trained.examples.numpy())
    np.testing.assert_allclose([answer.probabilities for answer in answers], expected, atol=1e-5)
    assert [answer.label for answer in answers] == [CLASSES[row.argmax()] for row in expected]
    assert answers[0].probability == pytest.approx(expected[0].max(), abs=1e-5)


def test_golden_sample_is_pytorchs_answer(bundle_of):
    trained, bundle = bundle_of("conv", "flora")
    sample = read_golden(bundle, verify_bundle(bundle))
    with torch.no_grad():
        expected = trained.model(torch.from_numpy(sample.inputs)).numpy()
    assert sample.inputs.shape == (8, 3, 12, 12)
    np.testing.assert_allclose(sample.logits, expected, rtol=0, atol=1e-6)


def test_golden_check_reports_a_small_difference(bundle_of):
    golden = BundleRunner(bundle_of("conv", "lora")[1]).check_golden()
    assert golden.rows == 8
    assert golden.max_abs_difference <= 1e-5
    assert golden.top1_agreement == 1.0


def test_golden_sample_of_another_model_is_refused(bundle_copy):
    tensors = load_file(bundle_copy / GOLDEN)
    save_file({**tensors, "logits": tensors["logits"] + 0.5}, bundle_copy / GOLDEN)
    _resign(bundle_copy)
    with pytest.raises(BundleError, match=r"must be within 0.0001 of the golden sample's.*got 0\.5"):
        BundleRunner(bundle_copy).check_golden()


def test_golden_sample_of_another_shape_is_refused(bundle_copy):
    save_file({"inputs": np.zeros((2, 3), np.float32), "logits": np.zeros((2, 5), np.float32)}, bundle_copy / GOLDEN)
    _resign(bundle_copy)
    with pytest.raises(BundleError, match="golden.safetensors: must hold"):
        BundleRunner(bundle_copy).check_golden()


def _resign(bundle):
    """Make the hashes fit the files again."""
    import dataclasses

    from deploy.bundle_files import MANIFEST, SUMS, describe_files
    from deploy.manifest import load_manifest

    manifest = load_manifest(bundle)
    files = {name: entry for name, entry in describe_files(bundle).items() if name not in (MANIFEST, SUMS)}
    write_manifest(bundle, dataclasses.replace(manifest, files=files))


@pytest.mark.parametrize("shape", [(3, 12, 12), (2, 3, 12, 13), (0, 3, 12, 12)])
def test_input_of_another_shape_is_refused(bundle_of, shape):
    with pytest.raises(DataError, match=r"image: must have shape \(batch, 3, 12, 12\)"):
        BundleRunner(bundle_of()[1]).predict(np.zeros(shape))


def test_input_that_is_not_finite_is_refused(bundle_of):
    with pytest.raises(DataError, match="image: must be finite"):
        BundleRunner(bundle_of()[1]).predict(np.full((1, 3, 12, 12), np.nan))


def test_missing_runtime_names_the_extra(bundle_of, monkeypatch):
    bundle = bundle_of()[1]
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    with pytest.raises(MissingPackageError, match=r'pip install "saga-peft\[deploy\]"'):
        BundleRunner(bundle)


def test_model_that_is_no_onnx_file_is_refused(bundle_copy):
    (bundle_copy / "model.onnx").write_bytes(b"not a model")
    _resign(bundle_copy)
    with pytest.raises(BundleError, match="model.onnx: must be an ONNX file that onnxruntime loads"):
        BundleRunner(bundle_copy)


def test_exported_answers_do_not_depend_on_threads(bundle_of):
    trained, bundle = bundle_of("conv", "flora")
    inputs = trained.examples.numpy()
    one, two = BundleRunner(bundle, threads=1).logits(inputs), BundleRunner(bundle, threads=2).logits(inputs)
    np.testing.assert_allclose(one, two, rtol=0, atol=1e-5)
