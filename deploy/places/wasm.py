"""A browser's runtime: onnxruntime-web in node and in a headless Chromium, on one thread."""

import base64
import functools
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from deploy.chromium import NAMES, find_browser, run_in_chromium
from deploy.graph_edit import read_graph
from deploy.model_files import ModelFile
from deploy.multi.adapter_file import read_adapter
from deploy.multi.required import split_defaults
from deploy.place import PLACES, Engine, Place, PlaceOptions, Reply
from deploy.wasm import run_in_node
from deploy.web.runtime import runtime_files
from shared_peft.packages import load_package

_MODEL = "model"
_REPEATS = 9
_BODY = """
const arrays = { float32: Float32Array, uint8: Uint8Array };
const tensor = ({ dtype, dims, base64 }) => {
  const { buffer } = Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
  return new ort.Tensor(dtype, new arrays[dtype](buffer), dims);
};
const tensors = (all) => Object.fromEntries(Object.entries(all).map(([name, each]) => [name, tensor(each)]));
const session = await ort.InferenceSession.create(await bytesOf(data.model));
const adapter = tensors(data.adapter);
const logits = [];
for (const piece of data.pieces) {
  const found = await session.run({ ...adapter, ...tensors(piece) });
  logits.push(...found[data.output].data);
}
const row = tensors(data.row);
const times = [];
for (let k = 0; k < data.repeats; k += 1) {
  const began = performance.now();
  await session.run({ ...adapter, ...row });
  times.push(performance.now() - began);
}
return { logits, milliseconds: times.sort((a, b) => a - b)[times.length >> 1] };
"""
_Run = Callable[[Mapping[str, bytes], str, Any, Mapping[str, Path]], Any]


@PLACES.register("wasm")
class Wasm(Place):
    """onnxruntime-web in node, a headless browser, or both; its files come from --runtime, or from npm."""

    def engines(self, options: PlaceOptions) -> list[Engine]:
        """Return node's engine and the browser's."""
        files = functools.cache(lambda: runtime_files(options.runtime))
        node = "" if shutil.which("node") else "node is not installed"
        browser = "" if find_browser() else f"no browser is installed ({', '.join(NAMES)})"
        return [
            Engine("WASM in node", node, functools.partial(_answer, run_in_node, files)),
            Engine("WASM in Chromium", browser, functools.partial(_answer, run_in_chromium, files)),
        ]


def _answer(run: _Run, runtime: Callable[[], Mapping[str, bytes]], file: ModelFile) -> Reply:
    with tempfile.TemporaryDirectory() as scratch:
        model, tensors = (file.path, {}) if file.adapter is None else _with_tensors(file, Path(scratch, _MODEL))
        data = {
            "model": _MODEL,
            "adapter": {name: _packed(values) for name, values in tensors.items()},
            "pieces": [{file.feed: _packed(piece)} for piece in file.pieces],
            "row": {file.feed: _packed(file.sample.inputs[:1])},
            "repeats": _REPEATS,
            "output": file.output,
        }
        found = run(runtime(), _BODY, data, {_MODEL: model})
    logits = np.array(found["logits"], dtype=np.float32).reshape(len(file.sample.inputs), -1)
    return Reply(logits, found["milliseconds"])


def _with_tensors(file: ModelFile, path: Path) -> tuple[Path, dict[str, np.ndarray]]:
    """Write the base without defaults, and return it with every tensor a task gives or leaves at its default.

    onnxruntime-web has no adapters: their tensors are inputs there, and it ignores an input that has a default.
    """
    onnx, model = load_package("onnx", "WASM", extra="deploy"), read_graph(file.path)
    defaults = {each.name: onnx.numpy_helper.to_array(each) for each in split_defaults(model)}
    path.write_bytes(model.SerializeToString())
    assert file.adapter is not None
    return path, {**defaults, **read_adapter(file.adapter, file.base_sha256)}


def _packed(values: np.ndarray) -> dict[str, Any]:
    """Return an array as JSON values, its bytes in base64 (little endian, as WASM)."""
    text = base64.b64encode(np.ascontiguousarray(values).tobytes()).decode()
    return {"dtype": str(values.dtype), "dims": list(values.shape), "base64": text}
