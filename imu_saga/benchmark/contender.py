"""A contender: a row of a benchmark, anything that turns a few labelled windows into probabilities for others."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from imu_saga.baselines import BASELINES
from imu_saga.benchmark.sides import Sides
from imu_saga.finetune import PLAIN_METHODS, FinetuneConfig, finetune, method_names, predict_probabilities
from imu_saga.windows import WindowSet
from shared_peft.errors import UnknownNameError

SCRATCH = PLAIN_METHODS[-1]


@dataclass(frozen=True, eq=False)
class Cell:
    """One thing to answer.

    Args:
        sides: the fold.
        labelled: the only windows whose labels may be looked at, validation included.
        seed: seed of whatever the contender draws.
    """

    sides: Sides
    labelled: WindowSet
    seed: int


@dataclass(frozen=True, eq=False)
class Contender:
    """A row of a benchmark.

    Args:
        name: the row's name.
        answer: returns class probabilities of the test windows, shape (windows, classes), as a function of the cell.
    """

    name: str
    answer: Callable[[Cell], np.ndarray]


def contender_names() -> tuple[str, ...]:
    """Return what ``contender`` can make: every baseline and every fine-tuning method."""
    return (*BASELINES.names(), *method_names())


def contender(method: str, tuning: FinetuneConfig, start: Callable[[Sides], Path], *, name: str = "") -> Contender:
    """Make a row of a baseline, or of a network fine-tuned by a method.

    Args:
        method: a name from BASELINES, or a fine-tuning method.
        tuning: how networks are fine-tuned; method and seed are set by the row and the cell.
        start: gives the checkpoint of a fold; never called for baselines and "scratch".
        name: the row's name; the method's if empty.

    Raises:
        UnknownNameError: no such baseline or method.
    """
    if method in BASELINES:
        kind = BASELINES.get(method)
        return Contender(name or method, lambda cell: kind(cell.seed).fit(cell.labelled).probabilities(cell.sides.test))
    if method not in method_names():
        must = f"name must be one of {', '.join(contender_names())}"
        raise UnknownNameError("contender", must, repr(method), "Correct the name")

    def answer(cell: Cell) -> np.ndarray:
        config = replace(tuning, method=method, seed=cell.seed)
        _, model = finetune(cell.labelled, config, checkpoint=None if method == SCRATCH else start(cell.sides))
        return predict_probabilities(model, cell.sides.test.x).numpy()

    return Contender(name or method, answer)
