"""The fp32 file with its batch fixed at 1 and its shapes computed: what accelerators want."""

from pathlib import Path

from deploy.graph_edit import fold, read_graph, used_domains, write_graph
from deploy.targets.onnx import check_model, strip
from deploy.variant import VARIANTS, Material, Precision, Variant, VariantOptions

BATCH = 1


@VARIANTS.register("fixed")
class Fixed(Variant):
    """The fp32 file for one window or image at a time: no shape is left to compute, as accelerators want it."""

    file_name = "model.fixed.onnx"
    precision = "fp32"
    batch = BATCH
    place = 10

    def wanted(self, options: VariantOptions) -> bool:
        """Return whether the options ask for it."""
        return options.fixed

    def write(self, material: Material, path: Path) -> Precision:
        """Fix the free dimension and let onnxruntime fold what depends on it alone; see `Variant.write`."""
        model = read_graph(material.model)
        for value in (*model.graph.input, *model.graph.output):
            value.type.tensor_type.shape.dim[0].dim_value = BATCH
        model = fold(model)
        used_domains(model)
        strip(model)
        check_model(model)
        write_graph(model, path)
        return self.precision
