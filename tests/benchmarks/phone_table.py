"""What a bundle's int8 file costs and brings, beside the fp32 one: seconds, size, error, accuracy, latency.

Given run folders, real accuracy on their validation data. Without any, networks with random weights, where size,
latency and error mean something and accuracy does not: rows are random, labels the network's own answers.

Run: python -m tests.benchmarks.phone_table [RUN or NAME ...]

NAME is one of the networks with random weights. Seconds are those of an export with its gates, without and with the
int8 file; latencies the medians of single rows on one thread, the two files taking turns.
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
from deploy.manifest import Manifest
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
WINDOW_NETS = ("saga", "limu", "resnet1d", "gru")
ROWS, REPEATS = 40, 200
COLUMNS = (
    "model | rows | export + gates s | with int8 s | fp32 MB | int8 MB | int8 % | max difference | "
    "of logits up to | agreement % | accuracy fp32 % | int8 % | fp32 ms | int8 ms"
)


def random_rows(trained: TrainedModel) -> TrainedModel:
    """Return the network with random validation rows, labelled as it answers them."""
    rows = torch.randn(ROWS, *trained.input_shape, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        labels = torch.cat([trained.model(row[None]) for row in rows]).argmax(1)
    return replace(trained, validation=lambda: LabelledRows(rows, labels))


def milliseconds(files: list[Path], row: np.ndarray) -> list[float]:
    """Return each file's median time of one row on one thread [ms]; the files take turns."""
    runs = [open_runner(file, threads=1) for file in files]
    taken: list[list[float]] = [[] for _ in runs]
    for _ in range(REPEATS):
        for run, times in zip(runs, taken, strict=True):
            began = time.perf_counter()
            run(row)
            times.append(1e3 * (time.perf_counter() - began))
    return [median(times[REPEATS // 10 :]) for times in taken]


def exported(trained: TrainedModel, bundle: Path, variants: VariantOptions) -> tuple[Manifest, float]:
    """Return the manifest of a bundle and the seconds it took."""
    began = time.perf_counter()
    return export_model(trained, bundle, variants=variants), time.perf_counter() - began


def table_row(name: str, trained: TrainedModel) -> str:
    """Export with an int8 file, whatever accuracy it loses, and return its row of the table."""
    with tempfile.TemporaryDirectory() as scratch:
        bundle = Path(scratch, "bundle")
        _, plain_s = exported(trained, Path(scratch, "plain"), VariantOptions())
        manifest, seconds = exported(trained, bundle, VariantOptions(int8="auto", max_drop=100))
        entry = manifest.variants["int8"]
        files = [bundle / manifest.model_file, bundle / entry.file]
        sizes, row = [file.stat().st_size / 1e6 for file in files], trained.examples[:1].numpy()
        largest = np.abs(open_runner(files[0], threads=1)(trained.examples.numpy())).max()
        times = milliseconds(files, row)
    found = entry.measured
    shares = [f"{100 * found[key]:.1f}" for key in ("top1_agreement", "accuracy_fp32", "accuracy")]
    cells = [name, f"{found['rows']:.0f}", f"{plain_s:.1f}", f"{seconds:.1f}", *(f"{size:.2f}" for size in sizes)]
    cells += [f"{100 * sizes[1] / sizes[0]:.1f}", f"{found['max_abs_difference']:.3f}", f"{largest:.1f}", *shares]
    return f"| {' | '.join([*cells, *(f'{taken:.2f}' for taken in times)])} |"


def main(asked: list[str]) -> None:
    """Print one Markdown row a model."""
    torch.set_num_threads(1)
    makers: dict[str, Callable[[], TrainedModel]] = {name: partial(image_model, name, "lora") for name in IMAGE_NETS}
    makers |= {name: partial(window_model, name, "lora") for name in WINDOW_NETS}
    if asked:
        makers = {Path(each).name: makers.get(each, partial(load_trained, Path(each))) for each in asked}
    print(f"| {COLUMNS} |\n|{'---|' * (COLUMNS.count('|') + 1)}")
    for name, make in makers.items():
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="ranks lowered")
            trained = make()
            print(table_row(name, trained if trained.validation else random_rows(trained)), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
