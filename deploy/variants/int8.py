"""The file with int8 weights, dynamic or static by where they stand; the rest stored in half precision."""

from pathlib import Path

from deploy.graph_edit import write_graph
from deploy.quantise import chosen_kind, compact, prepared, quantise_dynamic, quantise_static, weight_nodes
from deploy.targets.onnx import check_model
from deploy.variant import VARIANTS, Material, Precision, Variant, VariantOptions
from shared_peft.errors import ExportError


@VARIANTS.register("int8")
class Int8(Variant):
    """8-bit weights, by the policy for the architecture: about a quarter of the size."""

    file_name = "model.int8.onnx"
    precision = "int8"
    place = 30

    def wanted(self, options: VariantOptions) -> bool:
        """Return whether the options ask for it."""
        return options.int8 != "none"

    def write(self, material: Material, path: Path) -> Precision:
        """Quantise what training made; see `Variant.write`."""
        model = prepared(material.model)
        nodes = weight_nodes(model, prepared(material.twin))
        if not nodes:
            must = "must have at least one linear layer or convolution with weights of its own"
            raise ExportError("int8", must, "none", "Export without --int8")
        asked = material.options.int8
        kind = chosen_kind(nodes) if asked == "auto" else asked
        floats = {tensor.name for tensor in model.graph.initializer}
        if kind == "static":
            model = quantise_static(model, nodes, material.rows.calibration)
        else:
            model = quantise_dynamic(model, nodes)
        compact(model, floats)
        check_model(model)
        write_graph(model, path)
        return self.precision
