"""Every export target whose packages are installed, over the models people put on phones: size, parity, latency.

Run: OMP_NUM_THREADS=1 python -m tests.benchmarks.export_targets [--models saga resnet18] [--targets onnx executorch]
Prints a markdown table. Weights are random, so a fault cannot hide; latency is one row on one thread, median of 30.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch
from tqdm import tqdm

from deploy.parity import compare_answers
from deploy.program import export_program
from deploy.randomise import randomised_copy
from deploy.target import EXPORT_TARGETS
from deploy.targets import ExportTarget
from shared_peft.errors import MissingPackageError
from tests.deploy.architectures import window_model
from vision.backbones.build import build_backbone

IMAGE_MODELS = {
    "resnet18": "resnet18",
    "mobilenetv3_small": "mobilenetv3_small_100",
    "vit_tiny": "vit_tiny_patch16_224",
}
WINDOW_MODELS = ("saga", "limu")
REPEATS = 30


def plain_model(name: str) -> tuple[torch.nn.Module, tuple[int, ...]]:
    """Return an unadapted model with the shape of its input."""
    if name in WINDOW_MODELS:
        trained = window_model(name, "full")
        return trained.model, trained.input_shape
    built = build_backbone(f"timm/{IMAGE_MODELS[name]}", 10)
    return built.model.eval(), (built.data.channels, built.data.size, built.data.size)


def row(name: str, label: str, target: ExportTarget, scratch: Path) -> str:
    """Export one model to one target and return its line of the table."""
    model, shape = plain_model(name)
    generator = torch.Generator().manual_seed(0)
    examples = torch.randn(28, *shape, generator=generator)
    twin = randomised_copy(model, examples, generator=generator)
    path = scratch / target.file_name
    began = time.perf_counter()
    target.write(export_program(twin, shape), path, input_name="input", opset=20)
    seconds = time.perf_counter() - began
    run = target.open(path, threads=1)
    measured = compare_answers(twin, run, examples, "randomised")
    worst = max(batch.max_abs_difference for batch in measured.batches)
    times = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        run(examples[:1].numpy())
        times.append(1000 * (time.perf_counter() - began))
    size = path.stat().st_size / 1e6
    return f"| {name} | {label} | {seconds:.1f} | {size:.2f} | {worst:.1e} | {statistics.median(times):.2f} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="*", default=[*IMAGE_MODELS, *WINDOW_MODELS])
    parser.add_argument("--targets", nargs="*", default=EXPORT_TARGETS.names())
    options = parser.parse_args()
    torch.set_num_threads(1)
    lines = ["| model | target | export [s] | size [MB] | max difference | p50 [ms] |", "|---|---|---|---|---|---|"]
    with tempfile.TemporaryDirectory() as scratch:
        for name in tqdm(options.models):
            for label in options.targets:
                target = EXPORT_TARGETS.get(label)()
                try:
                    target.check_packages()
                except MissingPackageError as error:
                    lines.append(f"| {name} | {label} | {error.must}: not installed | | | |")
                    continue
                lines.append(row(name, label, target, Path(scratch)))
    print("\n".join(lines))


if __name__ == "__main__":
    main()
