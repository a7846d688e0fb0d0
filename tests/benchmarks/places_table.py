"""Every network of the phone table where a phone would run it: WASM in node on one thread, and emulated aarch64.

Run: python -m tests.benchmarks.places_table [--models saga timm/vit_tiny_patch16_224] [--runtime FOLDER]
     [--arm64-root FOLDER] [--out runs/places.json]

FOLDER of --runtime holds an installed onnxruntime-web (else npm fetches it); that of --arm64-root is made by
`python -m tests.benchmarks.arm64_root`. Adapters are filled at random and merged, the two inputs are random.
Differences are the fp32 file's: to the same file on this processor, and to PyTorch. Times are the smallest of 5
medians. A table that was stopped goes on where it was.
"""

import json
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import tyro
from tqdm import tqdm

from deploy import export_model
from deploy.model_files import model_files
from deploy.place import PlaceOptions
from deploy.places import PLACES
from deploy.places.cpu import answer
from deploy.variants import VariantOptions
from shared_peft.atomic import write_json
from shared_peft.training import TrainedModel
from tests.benchmarks.phone_table import IMAGE_NETS, WINDOW_NETS
from tests.deploy.architectures import image_model, window_model

BROWSER = "Chromium"  # slow to start, and node runs the same WASM
EXAMPLES, TRIES = 2, 4
COLUMNS = "model | where | largest logit | to this processor | to PyTorch | agreement % | one row ms"


@dataclass(frozen=True)
class Options:
    """Options of the command."""

    models: tuple[str, ...] = (*IMAGE_NETS, *WINDOW_NETS)
    """Networks of the phone table."""
    places: tuple[str, ...] = ("wasm", "arm64")
    """Names of places."""
    runtime: Path | None = None
    """Folder of an installed onnxruntime-web."""
    arm64_root: Path | None = None
    """Root of an aarch64 system."""
    out: Path = Path("runs/places.json")
    """Where rows are kept."""


def rows_of(trained: TrainedModel, options: Options) -> list[list[str]]:
    """Export a network and return a row for each place that has its runtime."""
    places = PlaceOptions(options.runtime, options.arm64_root)
    engines = [engine for name in options.places for engine in PLACES.get(name)().engines(places)]
    with tempfile.TemporaryDirectory() as scratch:
        bundle = Path(scratch, "bundle")
        few = replace(trained, examples=trained.examples[:EXAMPLES])  # an emulator is slow
        export_model(few, bundle, variants=VariantOptions(fixed=False))
        file = model_files(bundle)[0]
        here, rows = answer(file).logits, []
        for engine in engines:
            if engine.missing or BROWSER in engine.title:
                continue
            reply = engine.answer(file)
            if reply.milliseconds is not None:  # of a machine that does other things, too, the quietest moment
                again = (engine.answer(file).milliseconds for _ in range(TRIES))
                reply = replace(reply, milliseconds=min(filter(None, (reply.milliseconds, *again))))
            distances = [float(np.abs(reply.logits - other).max()) for other in (here, file.sample.logits)]
            agreed = 100 * float((reply.logits.argmax(1) == file.sample.logits.argmax(1)).mean())
            time = "" if reply.milliseconds is None else f"{reply.milliseconds:.2f}"
            cells = [engine.title, f"{np.abs(here).max():.1f}", *(f"{each:.1e}" for each in distances)]
            rows.append([*cells, f"{agreed:.0f}", time])
    return rows


def main(options: Options) -> None:
    """Measure what is not yet known and print the Markdown table."""
    torch.set_num_threads(1)
    known: dict[str, list[list[str]]] = json.loads(options.out.read_text()) if options.out.is_file() else {}
    for name in tqdm(options.models):
        if name in known:
            continue
        make: Callable[..., TrainedModel] = window_model if name in WINDOW_NETS else image_model
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="ranks lowered")
            known[name] = rows_of(make(name, "lora"), options)
        write_json(options.out, known)
    lines = [f"| {COLUMNS} |", f"|{'---|' * (COLUMNS.count('|') + 1)}"]
    lines += [f"| {' | '.join([name, *row])} |" for name in options.models for row in known[name]]
    print("\n".join(lines))


if __name__ == "__main__":
    main(tyro.cli(Options))
