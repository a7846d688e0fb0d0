"""From programs to ONNX graphs; programs that differ in their weights alone are converted once.

The exporter translates the operations of a program one by one and never looks at a weight. Only the optimiser after it
does (it folds constants), so that part runs again for every set of weights.
"""

import hashlib
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram

from deploy.program import quiet_export
from deploy.recurrent import onnx_translations
from deploy.target import OUTPUT_NAME
from shared_peft.errors import ExportError

_WHERE = "export target onnx"


class Conversion:
    """Converts programs; remembers the last graph, without its weights optimised into it."""

    def __init__(self) -> None:
        self._known = ""
        self._converted: Any = None
        self._template: Any = None

    def model(self, program: ExportedProgram, *, input_name: str, opset: int) -> Any:
        """Return the ONNX ModelProto of ``program``, optimised.

        Args:
            program: what to convert.
            input_name: name the one input gets.
            opset: operator set version asked for.

        Raises:
            ExportError: an operation has no ONNX form.
        """
        wanted = f"{input_name} {opset} {graph_digest(program)}"
        if wanted != self._known:
            self._converted = _convert(program, input_name, opset)
            self._template, self._known = self._converted.model, wanted
        self._converted.model = self._template.clone()
        present = self._template.graph.initializers
        self._converted.apply_weights({name: value for name, value in _weights(program).items() if name in present})
        self._converted.optimize()
        return self._converted.model_proto


def graph_digest(program: ExportedProgram) -> str:
    """Return a hash of all that a program is but for its weights' values.

    Operations with their arguments, names, shapes and types of all inputs and weights, and the range of the batch.
    Programs of one digest give one ONNX graph before optimisation.
    """
    weights = {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in _weights(program).items()}
    others = {name: repr(value) for name, value in program.constants.items() if not isinstance(value, Tensor)}
    shapes = [str(getattr(node.meta.get("val"), "shape", "")) for node in program.graph.nodes]
    parts = (program.graph, program.graph_signature, shapes, program.range_constraints, weights, others)
    inner = [module.code for module in program.graph_module.modules() if isinstance(module, torch.fx.GraphModule)]
    return hashlib.sha256("\n".join(map(str, (*parts, *inner))).encode()).hexdigest()


def _weights(program: ExportedProgram) -> dict[str, Tensor]:
    """Return parameters, buffers and constants by the names their initialisers get."""
    constants = {name: value for name, value in program.constants.items() if isinstance(value, Tensor)}
    return {name: value.detach() for name, value in {**program.state_dict, **constants}.items()}


def _convert(program: ExportedProgram, input_name: str, opset: int) -> Any:
    """Return torch's ONNXProgram, not optimised.

    ``external_data=False``: the default always writes a second file, which phones' and browsers' loaders miss.
    """
    try:
        with quiet_export():
            converted = torch.onnx.export(
                program,
                dynamo=True,
                opset_version=opset,
                external_data=False,
                input_names=[input_name],
                output_names=[OUTPUT_NAME],
                custom_translation_table=onnx_translations(),
                verbose=False,
                optimize=False,
            )
    except torch.onnx.OnnxExporterError as error:
        fix = "Replace the operation, or export without it"
        raise ExportError(_WHERE, "every operation must have an ONNX form", cause(error), fix) from error
    if converted is None:
        raise ExportError(_WHERE, "must return a program", "nothing", "Report the model's architecture")
    return converted


def cause(error: BaseException) -> str:
    """Return the first line of the innermost cause."""
    while error.__cause__ is not None:
        error = error.__cause__
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
