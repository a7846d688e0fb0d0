"""`python -m imu_saga pretrain`."""

import sys
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from imu_saga.augmentation import parse_augmentations
from imu_saga.evaluation.footprint import write_footprint
from imu_saga.pretrain import EQUAL_WEIGHTS, PretrainConfig, pretrain
from imu_saga.source import DataOptions, load_split, parsed_options, split_protocol
from imu_saga.store.split import options_of, split_store
from imu_saga.store.store import WindowStore
from shared_peft.command import Command
from shared_peft.config import to_json
from shared_peft.errors import RunError
from shared_peft.training import RunFolder, is_main, on_main, one_voice

KIND = "imu_saga.pretrain"
BEST = "best.json"
TRAINING_OVERLAP = 0.5


@dataclass(frozen=True)
class PretrainOptions:
    """Options of `python -m imu_saga pretrain`."""

    source: DataOptions = field(default_factory=lambda: DataOptions(overlap=TRAINING_OVERLAP))
    store: Path | None = None
    """Folder written by convert, read instead of --data; its own options about data and windows are used."""
    encoder: str = "saga"
    """Encoder: saga, resnet1d, gru or limu."""
    encoder_options: tuple[str, ...] = ()
    """Options of the encoder as NAME=VALUE, for example width=64 depth=3."""
    weights: tuple[str, ...] = ()
    """Loss weights as LEVEL=VALUE (sensor, point, sub_period, period); equal if none are given."""
    weights_from: Path | None = None
    """Folder of a search whose weights to use."""
    objective: str = "statistics"
    """What the encoder must tell of a masked window: its statistics, or rebuild it sample by sample."""
    augment: tuple[str, ...] = ("rotation", "scale", "jitter")
    """Augmentations as NAME or NAME.OPTION=VALUE, for example rotation.largest_deg=30; none after the flag turns them
    off."""
    mixing: str = "draw"
    """draw: one masking level a window; sum: all levels, four passes."""
    steps: int = 2000
    """Optimiser steps."""
    batch_size: int = 128
    """Windows a batch, those of all processes together."""
    learning_rate: float = 1e-3
    """Peak learning rate."""
    precision: Literal["no", "bf16"] = "no"
    """no computes in 32 bits; bf16 multiplies matrices in 16, where the machine is faster at it."""
    gradient_accumulation: int = 1
    """Batches a step."""
    ema_decay: float = 0.0
    """Decay of the average of the weights, which is then what is kept, for example 0.999; 0 keeps the last weights."""
    patience: int = 0
    """Validations without a better loss after which to stop and keep the best; 0 trains to the end on everybody."""
    validate_every: int = 100
    """Steps between validations."""
    validation_fraction: float = 0.1
    """Part of the training people kept aside to validate on, with --patience."""
    transductive: bool = False
    """Pre-train on the held-out people too, without their labels; `audit` then needs --transductive."""
    start: Path | None = None
    """Pre-training run or published weight file to start from."""
    seed: int = 0
    """Seed of weights, order and masks."""
    out: Path = Path("runs/imu_pretrain")
    """Folder to write."""
    resume: bool = False
    """Go on with the run in --out."""


def pretrain_config(options: PretrainOptions) -> PretrainConfig:
    """Return the library's configuration."""
    weights = parsed_options(options.weights, "--weights") or dict(EQUAL_WEIGHTS)
    if options.weights_from is not None:
        weights = RunFolder(options.weights_from).read(BEST)["weights"]
    return PretrainConfig(
        weights={name: float(value) for name, value in weights.items()},
        encoder=options.encoder,
        options=parsed_options(options.encoder_options, "--encoder-options"),
        objective=options.objective,
        augment=parse_augmentations(options.augment),
        mixing="sum" if options.mixing == "sum" else "draw",
        steps=options.steps,
        batch_size=options.batch_size,
        learning_rate=options.learning_rate,
        seed=options.seed,
        precision=options.precision,
        gradient_accumulation=options.gradient_accumulation,
        ema_decay=options.ema_decay,
        patience=options.patience,
        validate_every=options.validate_every,
        validation_fraction=options.validation_fraction,
    )


def training_windows(
    source: DataOptions, *, transductive: bool = False, store: WindowStore | None = None
) -> tuple[dict[str, Any], str]:
    """Return windows by side, unlabelled ones included, and the protocol's name; transductive trains on all of them."""
    if store is None:
        loaded = load_split(source, unlabelled=True)
        windows, split, said = loaded.windows, loaded.split, str(loaded)
    else:
        windows, split = store, split_store(store, source)
        said = f"{len(store)} windows\nheld out: {split}"
    rows = np.sort(np.concatenate([split.train, split.test])) if transductive else split.train
    sides = {"pretrain": rows, "test": split.test, "impostors": split.impostors}
    sys.stdout.write(f"{said}\n{len(rows)} windows to train on\n")
    return {name: windows.subset(side) for name, side in sides.items()}, split_protocol(source).name


def stored_options(run: Path, kind: str = KIND) -> dict:
    """Return the command-line options a run was made with.

    Raises:
        RunError: no such run, or one the library was called for without the command line.
    """
    config = RunFolder(run).describe(kind).get("config", {})
    if "source" not in config:
        raise RunError(run, "must be a run of the command line", "a run without data options", "Make it by command")
    return config


def run(options: PretrainOptions) -> None:
    """Pre-train and say where the encoder lies."""
    config, store = pretrain_config(options), None
    if options.store is not None:
        store = WindowStore.open(options.store)
        options = replace(options, source=options_of(store, options.source))
    described = {key: value for key, value in to_json(options).items() if key not in ("out", "resume")}
    with one_voice(), ExitStack() as held:
        folder = on_main(lambda: RunFolder.create(options.out, KIND, described, resume=options.resume))
        on_main(lambda: held.enter_context(folder.locked()))
        sides, protocol = training_windows(options.source, transductive=options.transductive, store=store)
        _, result = pretrain(sides["pretrain"], config, folder, start=options.start, resume=options.resume)
        if is_main():
            origins = {"start": options.start, "weights_from": options.weights_from}
            write_footprint(folder.path, sides, task=options.source.task, protocol=protocol, made_from=origins)
        rate = result.rows / max(result.seconds, 1e-9)
        kept = f", kept step {result.kept_step}" if result.kept_step else ""
        line = f"{result.steps} steps in {result.seconds:.0f} s ({rate:.0f} windows/s), loss {result.loss:.4f}{kept}"
        sys.stdout.write(f"{line}\n{options.out}\n")


COMMAND = Command(
    name="pretrain",
    config=PretrainOptions,
    run=run,
    summary="Pre-train an encoder on unlabelled recordings with the four masking levels.",
    example="python -m imu_saga pretrain --data sisfall --root FOLDER --out runs/pretrain",
    place=30,
)
