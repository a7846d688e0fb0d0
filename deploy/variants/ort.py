"""The smallest file in onnxruntime's own format, optimised for ARM: it loads faster and runs as fast."""

from pathlib import Path

from deploy.quantise import refusals
from deploy.variant import VARIANTS, Material, Precision, Variant, VariantOptions
from deploy.variants.int8 import Int8
from shared_peft.packages import load_package

_ERRORS_ONLY = 3


@VARIANTS.register("ort")
class Ort(Variant):
    """onnxruntime's own format for ARM, of the int8 file where there is one, else of the fp32 one: loads faster."""

    file_name = "model.ort"
    precision = "fp32"
    runtime = "ort"
    place = 90

    def wanted(self, options: VariantOptions) -> bool:
        """Return whether the options ask for it."""
        return options.ort

    def write(self, material: Material, path: Path) -> Precision:
        """Let onnxruntime optimise and save it; see `Variant.write`.

        The settings are those of onnxruntime's own converter for the target arm: int8 as ARM computes it, and no
        blocked layout of x86.
        """
        onnxruntime = load_package("onnxruntime", "writing an .ort file", extra="deploy")
        small = material.folder / Int8.file_name
        options = onnxruntime.SessionOptions()
        options.log_severity_level = _ERRORS_ONLY
        options.optimized_model_filepath = str(path)
        options.add_session_config_entry("session.save_model_format", "ORT")
        options.add_session_config_entry("session.qdqisint8allowed", "1")
        source = small if small.is_file() else material.model
        with refusals("writing an .ort file"):
            onnxruntime.InferenceSession(
                str(source), options, providers=["CPUExecutionProvider"], disabled_optimizers=["NchwcTransformer"]
            )
        return Int8.precision if small.is_file() else self.precision
