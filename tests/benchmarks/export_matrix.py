"""Export every architecture with every adapter method: nodes, parity, size, seconds.

Run: python -m tests.benchmarks.export_matrix [NAME ...]
"""

import sys
import tempfile
import time
import warnings
from pathlib import Path

from deploy import export_model
from shared_peft import METHODS
from tests.deploy.architectures import IMAGE_BACKBONES, WINDOWS, image_model, window_model

TIMM = ("timm/vit_tiny_patch16_224", "timm/convnext_atto", "torchvision/mobilenet_v3_small", "torchvision/resnet18")


def main(names: list[str]) -> None:
    """Print one Markdown row an export."""
    makers = {name: image_model for name in (*IMAGE_BACKBONES, *TIMM)} | dict.fromkeys(WINDOWS, window_model)
    print("| model | method | nodes | base nodes | max difference, filled | randomised | MB | s |")
    print("|---|---|---|---|---|---|---|---|")
    for name in names or makers:
        for method in METHODS.names():
            with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="ranks lowered")
                trained = makers[name](name, method)
                began = time.perf_counter()
                manifest = export_model(trained, Path(folder, "bundle"))
                seconds = time.perf_counter() - began
            parity, size = manifest.parity, manifest.files[manifest.model_file].size_bytes / 1e6
            base = manifest.nodes - int(parity["nodes_more_than_base"])
            differences = f"{parity['max_abs_difference_trained']:.1e} | {parity['max_abs_difference_randomised']:.1e}"
            print(f"| {name} | {method} | {manifest.nodes} | {base} | {differences} | {size:.2f} | {seconds:.1f} |")
            sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1:])
