"""A vision run folder: how a trained model is written, and read back for evaluation, prediction and export.

model.json (architecture, method, classes, preprocessing), model.safetensors (the base model with its trained head and
no adapter; the tuned model itself where no adapter was used), adapter/ (as `PeftModel.save_pretrained` writes it),
examples.safetensors (a few real inputs), results.json.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from shared_peft.config import from_json, to_json
from shared_peft.described import load_described
from shared_peft.errors import ConfigError, RunError
from shared_peft.training import LabelledRows, RunFolder, TrainedModel
from shared_peft.weights import check_rows, read_tensors, write_tensors
from vision.adapt import Trainee
from vision.backbones.build import build_from_spec
from vision.backbones.family import Backbone, BackboneSpec, DataConfig
from vision.datasets import draw_shots, open_images
from vision.transforms import describe_preprocessing, load_pixels, normalise

LARGEST_NUMBER = 1 << 16  # ours: of classes, pixels, channels and layers; builders count up to it
SINGLE_LABEL, VALIDATION_MOST = "single-label", 1024
SEGMENT = "vision.segment"  # kind of the runs whose model answers for every pixel


@dataclass(frozen=True)
class RunDescription:
    """What model.json holds.

    Args:
        spec: the architecture.
        method: "full", "probe" or an adapter method.
        classes: class names in the order of the logits.
        data: what the model expects of an image.
        head: names of the modules that make the logits.
        preprocessing: the same as ``data``, spelled out for other programs.
        seed: of the run.
        task: from `vision.tasks.TASKS`: what the logits mean.
    """

    spec: BackboneSpec
    method: str
    classes: tuple[str, ...]
    data: DataConfig
    head: tuple[str, ...]
    preprocessing: dict[str, Any]
    seed: int
    task: str = SINGLE_LABEL


def save_model(
    folder: RunFolder,
    backbone: Backbone,
    trainee: Trainee,
    classes: tuple[str, ...],
    *,
    method: str,
    seed: int,
    task: str = SINGLE_LABEL,
) -> None:
    """Write the trained model; an adapter is written apart and then taken off the model.

    Args:
        folder: the run folder.
        backbone: what the model was built from.
        trainee: the trained model; its adapter is unloaded by this call.
        classes: class names in the order of the logits.
        method: what trained it.
        seed: of the run.
        task: what the logits mean, a name from `vision.tasks.TASKS`.
    """
    base: nn.Module = trainee.model
    if trainee.peft is not None:
        trainee.peft.save_pretrained(folder.path / "adapter")
        base = trainee.peft.unload()
    write_tensors(folder.path / "model.safetensors", base.state_dict())
    preprocessing = describe_preprocessing(backbone.data)
    described = RunDescription(backbone.spec, method, classes, backbone.data, backbone.head, preprocessing, seed, task)
    folder.write("model.json", to_json(described))


def save_examples(folder: RunFolder, images: torch.Tensor) -> None:
    """Write a few preprocessed inputs, shape (n, channels, size, size)."""
    write_tensors(folder.path / "examples.safetensors", {"image": images})


def read_description(path: Path) -> RunDescription:
    """Return what a run folder says about its classifier.

    Raises:
        RunError: no vision run there, one that has not finished, or one of a model that is no classifier.
        ConfigError: a damaged model.json.
    """
    kind = RunFolder(path).describe("vision")["kind"]
    if kind == SEGMENT:
        fix = "Use python -m vision segment predict, or segment evaluate"
        raise RunError(path, "must be a run of a classifier", kind, fix)
    return stored_description(path)


def stored_description(path: Path) -> RunDescription:
    """Return what a run folder says about its model, whatever the model's kind.

    Raises:
        RunError: no vision run there, or one that has not finished.
        ConfigError: a damaged model.json.
    """
    folder = RunFolder(path)
    folder.describe("vision")
    described = from_json(RunDescription, folder.read("model.json"), str(path / "model.json"))
    largest = max(_numbers(to_json(described.spec)))
    if largest > LARGEST_NUMBER:
        must = f"no number of an architecture may be above {LARGEST_NUMBER}"
        raise ConfigError(path / "model.json", must, f"{largest:g}", "Train the run again")
    return described


def _numbers(value: Any) -> Iterator[float]:
    """Yield the size of every number in plain JSON values."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from _numbers(item)
    elif isinstance(value, (int, float)):
        yield abs(value)


def load_model(path: Path, description: RunDescription) -> nn.Module:
    """Return the trained model of a run in eval mode, a PeftModel where the run used an adapter.

    Raises:
        RunError: weights are missing.
        CheckpointError: weights that do not fit the architecture.
    """
    weights = path / "model.safetensors"
    if not weights.is_file():
        raise RunError(weights, "must have been written by the run", "no such file", "Let the run finish first")
    model = load_described(lambda: build_from_spec(description.spec).model, read_tensors(weights), weights)
    if (path / "adapter").is_dir():
        from shared_peft import PeftModel  # noqa: PLC0415

        return PeftModel.from_pretrained(model, path / "adapter").eval()
    return model.eval()


def load_run(path: Path) -> TrainedModel:
    """Read a finished run, for an exporter, an evaluator or a server.

    Args:
        path: the run folder.

    Returns:
        The model in eval mode with all that is needed to feed it.

    Raises:
        RunError: no vision run there, or one that has not finished.
        CheckpointError: weights that do not fit the architecture.
    """
    description = read_description(path)
    folder, data = RunFolder(path), description.data
    file, shape = path / "examples.safetensors", (data.channels, data.size, data.size)
    examples = read_tensors(file).get("image", torch.zeros(0))
    check_rows(examples, shape, file)
    return TrainedModel(
        kind="vision",
        model=load_model(path, description),
        build_base=lambda: build_from_spec(description.spec).model,
        input_name="image",
        input_shape=shape,
        classes=description.classes,
        preprocessing=description.preprocessing,
        examples=examples,
        scores=folder.read_object("results.json"),
        details={
            "backbone": description.spec.name,
            "method": description.method,
            "seed": description.seed,
            "task": description.task,
        },
        validation=(lambda: read_validation(path)) if description.task == SINGLE_LABEL else None,
    )


def read_validation(path: Path) -> LabelledRows:
    """Read images of the training side that the run did not train on, or those it did where none is left.

    Args:
        path: a finished run's folder.

    Returns:
        At most 1024 images, spread over the classes, preprocessed.

    Raises:
        RunError: the run does not say which images it was given.
        DataError: they are not there any more.
    """
    config, description = RunFolder(path).describe("vision")["config"], stored_description(path)
    lacking = [name for name in ("data", "classes", "shots", "seed") if name not in config]
    if lacking:
        must = "the run must say which images it was trained on"
        raise RunError(path, must, f"no {', '.join(lacking)}", "Use a run of `python -m vision finetune`")
    images = open_images(config["data"], tuple(config["classes"])).train
    seen = set(draw_shots(images, config["shots"], config["seed"]).tolist())
    rows = [row for row in range(len(images)) if row not in seen] or sorted(seen)
    spread = sorted(rows, key=lambda row: int(images.labels[row]))
    chosen = torch.linspace(0, len(spread) - 1, min(VALIDATION_MOST, len(spread))).round().long()
    pixels = load_pixels(images.take(torch.tensor(spread)[chosen]), description.data, skip_broken=True)
    return LabelledRows(normalise(pixels.values, description.data), pixels.labels)
