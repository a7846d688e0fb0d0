"""Pre-training on windows of which four granularities of masks hide a part (Saga, arXiv:2504.11726; constants ours)."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from imu_saga.augmentation import Augmentations
from imu_saga.card import CARD, WEIGHTS
from imu_saga.encoder import build_encoder, card_of, load_encoder
from imu_saga.held_out import held_out_loss, people_aside
from imu_saga.input_spec import InputSpec
from imu_saga.mixture import draw_every_level, draw_mixture, normalised_weights
from imu_saga.objectives import OBJECTIVES, Objective
from imu_saga.window_source import WindowSource
from shared_peft.errors import DataError
from shared_peft.training import Batch, RunFolder, TrainConfig, TrainResult, epoch_order, is_main, train
from shared_peft.weights import write_tensors

LOOKED_AT = 4096  # ours: windows an objective may look at before the first step
EQUAL_WEIGHTS = {"sensor": 0.25, "point": 0.25, "sub_period": 0.25, "period": 0.25}


@dataclass(frozen=True)
class PretrainConfig:
    """How to pre-train.

    Args:
        weights: loss weight by masking level; they are normalised to sum 1.
        encoder: name in ENCODERS.
        options: options of the encoder.
        objective: name in OBJECTIVES, what the encoder must tell of a masked window.
        augment: options of each augmentation of the windows shown, by name, in the order applied; empty for none.
        mixing: "draw" one level a window (same expectation, one pass), or the weighted "sum" of all levels.
        steps: optimiser steps.
        batch_size: windows a batch, those of all processes together.
        learning_rate: peak learning rate of AdamW.
        weight_decay: decoupled weight decay.
        seed: seed of weights, order and masks.
        precision: "no" computes in 32 bits, "bf16" multiplies matrices in 16.
        gradient_accumulation: batches a step.
        ema_decay: decay of the average of the weights, which is then kept; 0 keeps the last weights.
        patience: validations without a better loss after which training ends, the best weights kept; 0 trains to the
            end on everybody.
        validate_every: steps between validations.
        validation_fraction: part of the people kept aside to validate on, in (0, 1).
    """

    weights: dict[str, float] = field(default_factory=lambda: dict(EQUAL_WEIGHTS))
    encoder: str = "saga"
    options: dict[str, Any] = field(default_factory=dict)
    objective: str = "statistics"
    augment: dict[str, dict[str, Any]] = field(default_factory=lambda: {"rotation": {}, "scale": {}, "jitter": {}})
    mixing: Literal["draw", "sum"] = "draw"
    steps: int = 2000
    batch_size: int = 128
    learning_rate: float = 1e-3
    weight_decay: float = 0.05
    seed: int = 0
    precision: Literal["no", "bf16"] = "no"
    gradient_accumulation: int = 1
    ema_decay: float = 0.0
    patience: int = 0
    validate_every: int = 100
    validation_fraction: float = 0.1

    def __post_init__(self) -> None:
        OBJECTIVES.get(self.objective)
        Augmentations(self.augment)


def pretrain(
    windows: WindowSource,
    config: PretrainConfig,
    folder: RunFolder | None = None,
    *,
    start: Path | None = None,
    resume: bool = False,
    progress: str | None = "pretrain",
) -> tuple[Objective, TrainResult]:
    """Pre-train an encoder on windows; labels are not looked at.

    Args:
        windows: unlabelled or labelled windows, in memory (WindowSet) or on disk (WindowStore).
        config: see PretrainConfig.
        folder: where metrics, checkpoints, model.json and model.safetensors go.
        start: a pre-training run folder or published weight file to start from.
        resume: go on from ``folder``'s checkpoint.
        progress: label of the progress bar; None shows none.

    Returns:
        The trained encoder with its objective, and what training did.

    Raises:
        DataError: fewer than 2 windows, windows the encoder cannot read, or nobody to keep aside.
        UnknownNameError: no such encoder or level.
    """
    weights, validate = normalised_weights(config.weights), None
    if config.patience:
        windows, aside = people_aside(windows, config.validation_fraction, config.seed)
        validate = held_out_loss(aside, weights, config.seed)
    if len(windows) < 2:
        raise DataError("pretrain", "there must be at least 2 windows", len(windows), "Add recordings, or cut shorter")
    torch.manual_seed(config.seed)
    spec = InputSpec(windows.channels, float(windows.rate_hz), windows.x.shape[1], windows.gravity)
    name, model = _build(config, spec, start, windows)
    result = train(
        model,
        _objective(weights, config.mixing),
        mask_batches(windows, weights, config),
        _training(config, checkpoints=folder is not None),
        folder=folder,
        resume=resume,
        validate=validate,
        progress=progress,
    )
    if folder is not None and is_main():
        write_tensors(folder.path / WEIGHTS, model.state_dict())
        folder.write(CARD, card_of(name, model.encoder).as_json())
    return model.eval(), result


def _training(config: PretrainConfig, *, checkpoints: bool) -> TrainConfig:
    return TrainConfig(
        steps=config.steps,
        learning_rate=config.learning_rate,
        weight_decay=config.weight_decay,
        warmup_steps=max(1, config.steps // 20),
        gradient_accumulation=config.gradient_accumulation,
        mixed_precision=config.precision,
        checkpoint_every=max(1, config.steps // 20) if checkpoints else 0,
        log_every=max(1, config.steps // 200),
        seed=config.seed,
        ema_decay=config.ema_decay,
        validate_every=config.validate_every,
        patience=config.patience,
    )


def mask_batches(
    windows: WindowSource, weights: Mapping[str, float], config: PretrainConfig
) -> Callable[[int], list[Tensor]]:
    """Return the batch function: (shown, mask, valid, level, truth) of batch ``index``, by (seed, index) alone."""
    x_of, valid_of = windows.x, windows.valid
    used = [name for name, weight in weights.items() if weight > 0]
    augmentations = Augmentations(config.augment)

    def batch(index: int) -> list[Tensor]:
        rows = epoch_order(len(windows), config.batch_size, index, config.seed).numpy()
        truth = torch.from_numpy(x_of[rows])
        generator = torch.Generator().manual_seed((config.seed * 2_147_483_659 + index) % 2**63)
        about = {"rate_hz": windows.rate_hz, "channels": windows.channels}
        x, valid = augmentations.apply(
            truth, torch.from_numpy(valid_of[rows]), windows.channels, windows.rate_hz, generator
        )
        if config.mixing == "draw":
            mask, level = draw_mixture(x, valid, weights, generator, **about)
        else:
            mask = draw_every_level(x, valid, used, generator, **about)
            level = torch.zeros(len(rows), dtype=torch.long)
        return [x, mask, valid, level, truth]

    return batch


def _objective(weights: Mapping[str, float], mixing: str) -> Callable[..., tuple[Tensor, dict[str, float]]]:
    names = list(weights)

    def drawn(model: nn.Module, batch: Batch, step: int) -> tuple[Tensor, dict[str, float]]:
        shown, mask, valid, level, truth = batch
        losses = model(shown, mask, valid, truth)
        detached = losses.detach()
        logs = {
            f"loss_{name}": float(detached[level == index].mean())
            for index, name in enumerate(names)
            if (level == index).any()
        }
        return losses.mean(), logs

    def summed(model: nn.Module, batch: Batch, step: int) -> tuple[Tensor, dict[str, float]]:
        shown, masks, valid, _, truth = batch
        used = [name for name in names if weights[name] > 0]
        losses = {
            name: model(shown, mask, valid, truth).mean() for name, mask in zip(used, masks.unbind(1), strict=True)
        }
        total = torch.stack([weights[name] * loss for name, loss in losses.items()]).sum()
        return total, {f"loss_{name}": float(loss.detach()) for name, loss in losses.items()}

    return drawn if mixing == "draw" else summed


def _build(config: PretrainConfig, spec: InputSpec, start: Path | None, windows: WindowSource) -> tuple[str, Objective]:
    name, saved = config.encoder, {}
    if start is None:
        encoder = build_encoder(config.encoder, spec, config.options)
    else:
        name, encoder, saved = load_encoder(start, config.encoder, config.options, spec)
    model = OBJECTIVES.get(config.objective)(encoder)
    own = {key: value.shape for key, value in model.state_dict().items() if not key.startswith("encoder.")}
    if {key: value.shape for key, value in saved.items()} == own:
        model.load_state_dict({**model.state_dict(), **saved})
    else:  # a fresh start, another objective or another window length
        rows = epoch_order(len(windows), min(LOOKED_AT, len(windows)), 0, config.seed).numpy()
        model.prepare(torch.from_numpy(windows.x[rows]))
    return name, model
