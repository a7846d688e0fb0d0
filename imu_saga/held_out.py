"""When pre-training has learnt enough: the loss on some of its own people, who are kept aside (ours)."""

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor, nn

from imu_saga.mixture import draw_every_level
from imu_saga.splits import drawn_part
from imu_saga.window_source import WindowSource
from shared_peft.errors import DataError

MOST_WINDOWS = 1024  # ours: enough to tell two checkpoints apart, at the cost of some ten steps
ROWS_AT_ONCE = 256


def people_aside(windows: WindowSource, fraction: float, seed: int) -> tuple[WindowSource, WindowSource]:
    """Part windows by person: overlapping windows of one person are too alike to stand on both sides.

    Args:
        windows: the training side, of two people or more.
        fraction: part of the people to keep aside, in (0, 1); at least one and never all.
        seed: the same seed gives the same people.

    Returns:
        The windows to train on, and those to validate on.

    Raises:
        DataError: a single person, or a fraction outside (0, 1).
    """
    people = np.unique(windows.subjects)
    if len(people) < 2:
        must = "an early stop needs 2 people or more to train on"
        raise DataError("patience", must, len(people), "Set patience to 0, or add recordings")
    aside = np.isin(windows.subjects, drawn_part(people, fraction, np.random.default_rng(seed)))
    return windows.subset(~aside), windows.subset(aside)


def held_out_loss(windows: WindowSource, weights: Mapping[str, float], seed: int) -> Callable[[nn.Module], float]:
    """Return a function that scores an Objective by its expected loss on windows it does not train on.

    Windows (at most 1024) and masks are drawn once, so that two scores differ by the networks alone.

    Args:
        windows: windows kept aside.
        weights: loss weight by masking level, summing to 1.
        seed: of windows and masks.
    """
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randperm(len(windows), generator=generator)[:MOST_WINDOWS].sort().values.numpy()
    x, valid = torch.from_numpy(windows.x[rows]), torch.from_numpy(windows.valid[rows])
    used = [name for name, weight in weights.items() if weight > 0]
    shares = torch.tensor([weights[name] for name in used])
    masks = draw_every_level(x, valid, used, generator, rate_hz=windows.rate_hz, channels=windows.channels)

    def score(model: nn.Module) -> float:
        device = next(model.parameters()).device
        losses: list[Tensor] = []
        for part in torch.arange(len(x)).split(ROWS_AT_ONCE):
            shown, measured = x[part].to(device), valid[part].to(device)
            levels = [model(shown, mask.to(device), measured, shown) for mask in masks[part].unbind(1)]
            losses.append(torch.stack(levels, dim=1).float().cpu() @ shares)
        return float(torch.cat(losses).mean())

    return score
