"""From programs to ONNX graphs; programs that differ in their weights alone are converted once.

The exporter translates the operations of a program one by one and never looks at a weight. Only the optimiser after it
does (it folds constants), so that part runs again for every set of weights.
"""

from typing import Any

import torch
from torch.export import ExportedProgram

from deploy.program import graph_digest, quiet_export, weights_of
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
        self._converted.apply_weights({name: value for name, value in weights_of(program).items() if name in present})
        self._converted.optimize()
        return self._converted.model_proto


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
