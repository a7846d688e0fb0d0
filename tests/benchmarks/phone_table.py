"""What a bundle's int8 file costs and brings, beside the fp32 one: seconds, size, error, accuracy, latency.

Given run folders, real accuracy on their validation data. Without any, networks with random weights, where size,
latency and error mean something and accuracy does not: rows are random, labels the network's own answers.

Run: python -m tests.benchmarks.phone_table [RUN ...]
"""

import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
import torch

from deploy import export_model, load_trained
from deploy.session import open_runner
from deploy.variants import VariantOptions
from shared_peft.training import LabelledRows, TrainedModel
from tests.deploy.architectures import image_model, window_model

IMAGE_NETS = (
    "torchvision/resnet18",
    "torchvision/mobilenet_v3_small",
    "timm/convnext_atto",
    "timm/vit_tiny_patch16_224",
)
WINDOW_NETS = ("saga", "limu")
ROWS, REPEATS = 40, 30
COLUMNS = (
    "model | rows | export + gates s | fp32 MB | int8 MB | int8 % | max difference | of logits up to | agreement % | "
    "accuracy fp32 % | int8 % | fp32 ms | int8 ms"
)


def random_rows(trained: TrainedModel) -> TrainedModel:
    """Return the network with random validation rows, labelled as it answers them."""
    rows = torch.randn(ROWS, *trained.input_shape, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        labels = torch.cat([trained.model(row[None]) for row in rows]).argmax(1)
    return replace(trained, validation=lambda: LabelledRows(rows, labels))


def milliseconds(path: Path, row: np.ndarray) -> float:
    """Return the median time of one row on one thread [ms]."""
    run, taken = open_runner(path, threads=1), []
    for _ in range(REPEATS):
        began = time.perf_counter()
        run(row)
        taken.append(1e3 * (time.perf_counter() - began))
    return median(taken[3:])


def table_row(name: str, trained: TrainedModel) -> str:
    """Export with an int8 file, whatever accuracy it loses, and return its row of the table."""
    with tempfile.TemporaryDirectory() as scratch:
        bundle, began = Path(scratch, "bundle"), time.perf_counter()
        manifest = export_model(trained, bundle, variants=VariantOptions(int8="auto", max_drop=100))
        seconds, entry = time.perf_counter() - began, manifest.variants["int8"]
        files = [bundle / manifest.model_file, bundle / entry.file]
        sizes, row = [file.stat().st_size / 1e6 for file in files], trained.examples[:1].numpy()
        largest = np.abs(open_runner(files[0], threads=1)(trained.examples.numpy())).max()
        times = [milliseconds(file, row) for file in files]
    found = entry.measured
    shares = [f"{100 * found[key]:.1f}" for key in ("top1_agreement", "accuracy_fp32", "accuracy")]
    cells = [name, f"{found['rows']:.0f}", f"{seconds:.1f}", *(f"{size:.2f}" for size in sizes)]
    cells += [f"{100 * sizes[1] / sizes[0]:.1f}", f"{found['max_abs_difference']:.3f}", f"{largest:.1f}", *shares]
    return f"| {' | '.join([*cells, *(f'{taken:.2f}' for taken in times)])} |"


def main(runs: list[str]) -> None:
    """Print one Markdown row a model."""
    torch.set_num_threads(1)
    makers: dict[str, Callable[[], TrainedModel]] = {Path(run).name: partial(load_trained, Path(run)) for run in runs}
    if not runs:
        makers |= {name: partial(image_model, name, "lora") for name in IMAGE_NETS}
        makers |= {name: partial(window_model, name, "lora") for name in WINDOW_NETS}
    print(f"| {COLUMNS} |\n|{'---|' * (COLUMNS.count('|') + 1)}")
    for name, make in makers.items():
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="ranks lowered")
            trained = make()
            print(table_row(name, trained if runs else random_rows(trained)), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
