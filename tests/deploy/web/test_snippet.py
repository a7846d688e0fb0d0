"""The generated JavaScript, run in node on onnxruntime-web, answers the golden sample as Python does."""

import numpy as np
import pytest
import torch

from deploy import BundleRunner, export_model, load_manifest
from deploy.golden import read_golden
from deploy.parity import TOLERANCE
from deploy.preprocess import in_graph
from deploy.snippets import write_snippets
from deploy.wasm import run_in_node
from deploy.web.runtime import runtime_files
from shared_peft.errors import ExportError
from tests.deploy.toys import ConvNet, trained_toy
from vision.transforms import describe_preprocessing, normalise

ANSWER = """
const { Model, MODEL_FILE } = await import(data.snippet);
const model = await Model.load(ort, await bytesOf(MODEL_FILE));
const found = [];
for (const row of data.rows) {
  const input = Float32Array.from(row);
  found.push({ ...(await model.answer(input)), logits: [...(await model.logits(input))] });
}
return found;
"""
FEED = "const { inputOf } = await import(data.snippet); return data.rows.map((raw) => [...inputOf(raw)]);"

ANY_SIZE = """
const { Model, MODEL_FILE } = await import(data.snippet);
const model = await Model.load(ort, await bytesOf(MODEL_FILE));
const [{ dims, levels }] = data.rows;
return [[...(await model.logits(Uint8Array.from(levels), dims))]];
"""


@pytest.fixture
def run_snippet(tmp_path, web_runtime):
    """Write a bundle's snippet where node takes it for a module, and run a function body beside it."""

    def run(bundle, body, rows):
        write_snippets(tmp_path, load_manifest(bundle))
        (tmp_path / "package.json").write_text('{"type": "module"}')
        data = {"snippet": (tmp_path / "snippet.js").as_uri(), "rows": rows}
        return run_in_node(runtime_files(web_runtime), body, data, {"model.onnx": bundle / "model.onnx"})

    return run


@pytest.mark.parametrize("bundle", ["motion_bundle", "vision_bundle"])
def test_snippet_answers_the_golden_sample_as_python(run_snippet, request, bundle):
    folder = request.getfixturevalue(bundle)
    sample = read_golden(folder, load_manifest(folder))
    found = run_snippet(folder, ANSWER, sample.inputs.reshape(len(sample.inputs), -1).tolist())
    np.testing.assert_allclose([each["logits"] for each in found], sample.logits, rtol=0, atol=TOLERANCE)
    answers = BundleRunner(folder).predict(sample.inputs)
    assert [each["label"] for each in found] == [answer.label for answer in answers]
    expected = [answer.probability for answer in answers]
    assert [each["probability"] for each in found] == pytest.approx(expected, abs=1e-5)


def test_snippet_refuses_an_input_of_another_size(run_snippet, motion_bundle):
    with pytest.raises(ExportError, match="the input must have 240 values, got 239"):
        run_snippet(motion_bundle, ANSWER, [[0.0] * 239])


def test_snippet_normalises_levels_as_training_did(run_snippet, vision_bundle, vision_data):
    size = vision_data.size
    pixels = torch.randint(0, 256, (2, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    found = run_snippet(vision_bundle, FEED, pixels.permute(0, 2, 3, 1).reshape(2, -1).tolist())
    expected = normalise(pixels, vision_data).reshape(2, -1).numpy()
    np.testing.assert_allclose(np.array(found), expected, rtol=0, atol=1e-6)


def test_snippet_feeds_pixels_of_any_size_to_a_graph_that_prepares_them(run_snippet, vision_data, tmp_path):
    torch.manual_seed(2)
    trained = trained_toy(ConvNet(), ConvNet, preprocessing=describe_preprocessing(vision_data))
    bundle = tmp_path / "in-graph"
    assert export_model(in_graph(trained), bundle).input.free_axes == (0, 1)
    pixels = np.random.default_rng(0).integers(0, 256, (1, 21, 33, 3), dtype=np.uint8)
    (found,) = run_snippet(bundle, ANY_SIZE, [{"dims": pixels.shape, "levels": pixels.ravel().tolist()}])
    np.testing.assert_allclose(found, BundleRunner(bundle).logits(pixels)[0], rtol=0, atol=TOLERANCE)


def test_snippet_reads_a_window_sample_by_sample(run_snippet, motion_bundle):
    window = np.random.default_rng(0).normal(size=(40, 6)).astype(np.float32)
    (found,) = run_snippet(motion_bundle, FEED, [window.tolist()])
    np.testing.assert_array_equal(np.array(found, np.float32), window.ravel())
