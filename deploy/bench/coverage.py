"""How much of a graph accelerators would take, by onnxruntime's own checker, were all its shapes fixed."""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploy.model_files import ModelFile
from shared_peft.packages import load_package

XNNPACK = "XNNPACK"
_COREML = {
    "CoreML NeuralNetwork": "coreml_supported_neuralnetwork_ops.md",
    "CoreML MLProgram": "coreml_supported_mlprogram_ops.md",
}
# What the provider has kernels for, by operator; for 2-D and fixed weights only, so that this is an upper bound.
# Source: onnxruntime's documentation, "XNNPACK Execution Provider", supported ops.
_XNNPACK_OPERATORS = frozenset(
    ("AveragePool", "Conv", "ConvTranspose", "Gemm", "MatMul", "MaxPool", "QLinearAveragePool", "QLinearConv")
    + ("QLinearSoftmax", "Resize", "Softmax")
)


@dataclass(frozen=True)
class Coverage:
    """What one accelerator would take.

    Args:
        partitions: pieces the graph falls into; each costs a hand-over. 0 where nobody counts them.
        share: of the nodes, in [0, 1].
        missing: operators it does not know.
    """

    partitions: int
    share: float
    missing: tuple[str, ...]


def coverage(file: ModelFile) -> dict[str, Coverage]:
    """Return the coverage of every accelerator with a checker; nothing for a file that is no .onnx.

    XNNPACK has no checker: its share counts operators by name. QNN has none either; `check --on qnn` counts the nodes
    that its emulator takes.
    """
    if file.path.suffix != ".onnx":
        return {}
    onnx = load_package("onnx", "coverage", extra="deploy")
    checker = load_package("onnxruntime.tools.mobile_helpers.usability_checker", "coverage", extra="deploy")
    tools = load_package("onnxruntime.tools.onnx_model_utils", "coverage", extra="deploy")
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch, "optimised.onnx")
        tools.optimize_model(file.path, path)
        model = onnx.shape_inference.infer_shapes(onnx.load(path))
    found = {"NNAPI": checker.check_nnapi_partitions(model, require_fixed_input_sizes=False)}
    found |= {name: checker.check_coreml_partitions(model, False, table) for name, table in _COREML.items()}
    made = {name: _of(info) for name, info in found.items()}
    operators = [node.op_type for node in model.graph.node]
    others = tuple(sorted(set(operators) - _XNNPACK_OPERATORS))
    taken = sum(name in _XNNPACK_OPERATORS for name in operators)
    return {**made, XNNPACK: Coverage(0, taken / max(1, len(operators)), others)}


def _of(info: Any) -> Coverage:
    share = info.num_supported_nodes / max(1, info.num_nodes)
    return Coverage(
        info.num_partitions, share, tuple(sorted(name.removeprefix("ai.onnx:") for name in info.unsupported_ops))
    )
