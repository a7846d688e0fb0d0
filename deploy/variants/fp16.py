"""The file stored in half precision and computed in float32: half the size, the answers within 1e-2 or so."""

from pathlib import Path

from deploy.graph_edit import halve, read_graph, share_equal, write_graph
from deploy.targets.onnx import check_model
from deploy.variant import VARIANTS, Material, Precision, Variant, VariantOptions


@VARIANTS.register("fp16")
class Half(Variant):
    """Weights stored in half precision, computed in single: half the size."""

    file_name = "model.fp16.onnx"
    precision = "fp16"
    place = 20

    def wanted(self, options: VariantOptions) -> bool:
        """Return whether the options ask for it."""
        return options.fp16

    def write(self, material: Material, path: Path) -> Precision:
        """Halve every large tensor; see `Variant.write`."""
        model = read_graph(material.model)
        share_equal(model)
        halve(model, {tensor.name for tensor in model.graph.initializer})
        check_model(model)
        write_graph(model, path)
        return self.precision
