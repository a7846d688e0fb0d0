"""A fine-tuned run on disk, and back: model.json, unadapted weights, adapter, real examples, scores."""

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from imu_saga.card import CARD, WEIGHTS, ModelCard, read_card
from imu_saga.encoder import build_encoder, card_of
from imu_saga.heads import Classifier
from imu_saga.windows import WindowSet
from shared_peft import PeftModel
from shared_peft.config import from_json
from shared_peft.described import load_described
from shared_peft.errors import RunError
from shared_peft.training import LabelledRows, RunFolder, TrainedModel
from shared_peft.weights import check_rows, read_tensors, write_tensors

ADAPTER, EXAMPLES, RESULTS = "adapter", "examples.safetensors", "results.json"
KIND, FINETUNE_KIND = "imu_saga", "imu_saga.finetune"
BASE_MARK = "base_sha256"
N_EXAMPLES, VALIDATION_MOST = 8, 1024


def save_run(folder: RunFolder, encoder: str, model: nn.Module, examples: WindowSet, results: dict[str, Any]) -> None:
    """Write a fine-tuned model. An adapter is stored apart from the base; the model itself is used up.

    Args:
        folder: the run's folder.
        encoder: the encoder's registered name.
        model: a Classifier, or a PeftModel around one.
        examples: real windows; up to 8, spread over the classes, are stored.
        results: scores and details, plain JSON values; the SHA-256 of the unadapted encoder joins the details.
    """
    if isinstance(model, PeftModel):
        model.save_pretrained(folder.path / ADAPTER)
        model = model.unload()
    if not isinstance(model, Classifier):
        raise RunError(folder.path, "the model must be a Classifier", type(model).__name__, "Use finetune()")
    write_tensors(folder.path / WEIGHTS, model.state_dict())
    spread = np.argsort(examples.labels, kind="stable")
    rows = spread[np.linspace(0, len(spread) - 1, min(N_EXAMPLES, len(spread))).round().astype(int)]
    stored = {"window": torch.from_numpy(examples.x[rows]), "label": torch.from_numpy(examples.labels[rows])}
    write_tensors(folder.path / EXAMPLES, stored)
    folder.write(
        CARD, card_of(encoder, model.encoder, examples.classes, statistics=model.statistics is not None).as_json()
    )
    details = {**results.get("details", {}), BASE_MARK: tensors_sha256(model.encoder.state_dict())}
    folder.write(RESULTS, {**results, "details": details})


def tensors_sha256(tensors: Mapping[str, torch.Tensor]) -> str:
    """Return the SHA-256 of named tensors: names, types, shapes and values, in order of name.

    Adapter runs on one frozen encoder have that of its tensors in common.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().flatten().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def load_run(path: Path, *, channels: tuple[str, ...] | None = None) -> TrainedModel:
    """Read a finished fine-tuning run back.

    Args:
        path: the run folder.
        channels: rebuild the model for these of its channels only; the slots of the others stay 0.

    Returns:
        The model in eval mode with its adapter attached, its input, classes and preprocessing.

    Raises:
        RunError: no fine-tuning run there, or an unfinished one.
        CheckpointError: weights that do not fit model.json.
    """
    folder = RunFolder(path)
    described = folder.describe(FINETUNE_KIND)
    (scores, details), card = _scores(folder), read_card(path)
    if channels is not None:
        card = replace(card, input=replace(card.input, channels=channels))
    base = load_described(lambda: build_base(card), read_tensors(path / WEIGHTS), path / WEIGHTS)
    model: nn.Module = base
    if (path / ADAPTER).is_dir():
        model = PeftModel.from_pretrained(base, path / ADAPTER)
    model.requires_grad_(False)
    return TrainedModel(
        kind=KIND,
        model=model.eval(),
        build_base=lambda: build_base(card),
        input_name="window",
        input_shape=(card.input.samples, len(card.input.channels)),
        classes=card.classes,
        preprocessing=preprocessing(card),
        examples=_examples(path, card),
        scores=scores,
        details={"encoder": card.encoder, "config": described["config"], **details},
        validation=lambda: read_validation(path, card),
    )


def read_validation(path: Path, card: ModelCard) -> LabelledRows:
    """Read labelled windows of the training side that the run did not train on, or those it did where none is left.

    Args:
        path: a finished run's folder.
        card: says which channels the model takes.

    Returns:
        At most 1024 windows, spread over the classes, in SI units.

    Raises:
        RunError: the run does not say which recordings it was given.
        DataError: they are not there any more.
    """
    from imu_saga.source import DataOptions, load_split  # noqa: PLC0415  (reads every data set)
    from imu_saga.splits import few_shot  # noqa: PLC0415

    config = RunFolder(path).describe(FINETUNE_KIND).get("config", {})
    if not {"source", "shots", "seed"} <= config.keys():
        must = "the run must say which recordings it was trained on"
        raise RunError(path, must, "no such options", "Use a run of `python -m imu_saga finetune`")
    loaded = load_split(from_json(DataOptions, config["source"], str(path)))
    windows, rows = loaded.windows, loaded.split.train
    if config["shots"]:
        drawn = few_shot(windows, rows, shots=config["shots"], seed=config["seed"]).train
        rows = np.setdiff1d(rows, drawn) if len(rows) > len(drawn) else rows
    spread = rows[np.argsort(windows.labels[rows], kind="stable")]
    chosen = spread[np.linspace(0, len(spread) - 1, min(VALIDATION_MOST, len(spread))).round().astype(int)]
    columns = [windows.channels.index(name) for name in card.input.channels]
    inputs = torch.from_numpy(np.ascontiguousarray(windows.x[chosen][..., columns]))
    return LabelledRows(inputs, torch.from_numpy(windows.labels[chosen]).long())


def _examples(path: Path, card: ModelCard) -> torch.Tensor:
    """Return the stored windows, of the card's channels only."""
    stored = read_card(path).input
    columns = [stored.channels.index(name) for name in card.input.channels]
    windows = read_tensors(path / EXAMPLES).get("window", torch.zeros(0))
    check_rows(windows, (stored.samples, len(stored.channels)), path / EXAMPLES)
    return windows[..., columns]


def _scores(folder: RunFolder) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the scores and the details of results.json."""
    results = folder.read_object(RESULTS)
    scores, details = (results.get(name, {}) for name in ("scores", "details"))
    if not isinstance(scores, dict) or not isinstance(details, dict):
        raise RunError(folder.path / RESULTS, "scores and details must be objects", "something else", "Run again")
    return scores, details


def build_base(card: ModelCard) -> Classifier:
    """Return the classifier a card describes, freshly initialised."""
    encoder = build_encoder(card.encoder, card.input, card.options)
    return Classifier(encoder, len(card.classes), statistics=card.statistics)


def preprocessing(card: ModelCard) -> dict[str, Any]:
    """Return what must happen to raw data before it is fed; scaling is inside the model."""
    return {
        "rate_hz": card.input.rate_hz,
        "seconds": card.input.seconds,
        "samples": card.input.samples,
        "channels": list(card.input.channels),
        "units": list(card.input.units),
        "gravity": card.input.gravity,
        "layout": "(batch, samples, channels)",
        "scale": "inside the model: feed SI units as they are",
    }
