"""A segmenter read back from its run folder, for evaluation, prediction, the next step and export."""

import dataclasses
from pathlib import Path

import torch
from torch import nn

from shared_peft.errors import RunError
from shared_peft.training import RunFolder, TrainedModel
from shared_peft.weights import load_checked, read_tensors
from vision.backbones.family import Backbone
from vision.segmentation.model import build_segmenter
from vision.trained import SEGMENT, RunDescription, stored_description


def read_segmenter(path: Path) -> tuple[RunDescription, Backbone]:
    """Read a finished segment run.

    Args:
        path: the run folder.

    Returns:
        What the run says about its model, and the model in eval mode: a PeftModel where the run used an adapter.

    Raises:
        RunError: no segment run there, or one that has not finished.
        CheckpointError: weights that do not fit the architecture.
    """
    RunFolder(path).describe(SEGMENT)
    description, weights = stored_description(path), path / "model.safetensors"
    if not weights.is_file():
        raise RunError(weights, "must have been written by the run", "no such file", "Let the run finish first")
    backbone = build_segmenter(description.spec)
    load_checked(backbone.model, read_tensors(weights), weights)
    model: nn.Module = backbone.model
    if (path / "adapter").is_dir():
        from shared_peft import PeftModel  # noqa: PLC0415

        model = PeftModel.from_pretrained(model, path / "adapter")
    return description, dataclasses.replace(backbone, model=model.eval(), data=description.data)


def plain_segmenter(path: Path) -> tuple[RunDescription, Backbone]:
    """Read a finished segment run with its adapter, if any, merged into the weights.

    Raises:
        RunError, CheckpointError: see `read_segmenter`.
        MergeError: an adapter that is no change of weights.
    """
    description, backbone = read_segmenter(path)
    model = backbone.model
    merged = model.merge_and_unload() if hasattr(model, "merge_and_unload") else model  # type: ignore[operator]
    return description, dataclasses.replace(backbone, model=merged.eval())


def load_segment_run(path: Path) -> TrainedModel:
    """Read a finished segment run, for an exporter or a server.

    Returns:
        The model in eval mode, logits (n, classes, height, width), with all that is needed to feed it.

    Raises:
        RunError, CheckpointError: see `read_segmenter`.
    """
    description, backbone = read_segmenter(path)
    examples: torch.Tensor = read_tensors(path / "examples.safetensors")["image"]
    return TrainedModel(
        kind="vision",
        model=backbone.model,
        build_base=lambda: build_segmenter(description.spec).model,
        input_name="image",
        input_shape=tuple(examples.shape[1:]),
        classes=description.classes,
        preprocessing={**description.preprocessing, "crop": "none", "resize": "both sides, to height_px and width_px"},
        examples=examples,
        scores=RunFolder(path).read("results.json"),
        details={
            "backbone": description.spec.name,
            "method": description.method,
            "seed": description.seed,
            "task": "segmentation",
        },
    )
