"""Smoothing of answers over consecutive windows, for files and streams alike; a gap starts it afresh."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from shared_peft.config import from_json
from shared_peft.errors import ConfigError
from shared_peft.registry import Registry


class Answer(NamedTuple):
    """One window's answer.

    Args:
        index: class index.
        confidence: in [0, 1].
        memory: what the next step needs.
    """

    index: int
    confidence: float
    memory: tuple[Any, ...]


class Smoothing(ABC):
    """A rule from the probabilities of consecutive windows to one answer each; a final one is a frozen dataclass."""

    @abstractmethod
    def step(self, memory: tuple[Any, ...], probabilities: np.ndarray) -> Answer:
        """Answer one window.

        Args:
            memory: what the last step returned; () at the start and after a gap.
            probabilities: (classes,) of the window.
        """


SMOOTHINGS: Registry[type[Smoothing]] = Registry("smoothing")


def build_smoothing(name: str, options: Mapping[str, Any] | None = None) -> Smoothing:
    """Return the smoothing called ``name``.

    Args:
        name: a registered name.
        options: its fields; absent ones keep their defaults.

    Raises:
        UnknownNameError: no such smoothing.
        ConfigError: no such option, or a value it cannot have.

    Example:
        >>> vote = build_smoothing("vote", {"n": 3})
        >>> vote.step((), np.array([0.2, 0.8])).index
        1
    """
    return from_json(SMOOTHINGS.get(name), options or {}, f"smoothing {name}")


@SMOOTHINGS.register("none")
@dataclass(frozen=True)
class NoSmoothing(Smoothing):
    """The most probable class of the window itself."""

    def step(self, memory: tuple[Any, ...], probabilities: np.ndarray) -> Answer:
        """Answer with the window's own class and its probability."""
        index = int(probabilities.argmax())
        return Answer(index, float(probabilities[index]), memory)


@SMOOTHINGS.register("vote")
@dataclass(frozen=True)
class Vote(Smoothing):
    """The class most of the last n windows chose; of equals the one with the most probability in total."""

    n: int = 5
    """Windows that vote."""

    def __post_init__(self) -> None:
        _check_count("vote", self.n)

    def step(self, memory: tuple[Any, ...], probabilities: np.ndarray) -> Answer:
        """Answer with the majority's class and its mean probability over the voters."""
        last = (*memory, probabilities)[-self.n :]
        voters = np.stack(last)
        votes = np.bincount(voters.argmax(axis=1), minlength=voters.shape[1])
        shares = voters.mean(axis=0)
        index = int(np.lexsort((shares, votes))[-1])
        return Answer(index, float(shares[index]), last)


@SMOOTHINGS.register("hysteresis")
@dataclass(frozen=True)
class Hysteresis(Smoothing):
    """The last answer, until another class has beaten it by ``margin`` in n windows in a row."""

    n: int = 2
    """Windows in a row another class must win."""
    margin: float = 0.1
    """By how much, in probability."""

    def __post_init__(self) -> None:
        _check_count("hysteresis", self.n)
        if not 0 <= self.margin < 1:
            raise ConfigError("smoothing hysteresis margin", "must be in [0, 1)", self.margin, "Use 0.1")

    def step(self, memory: tuple[Any, ...], probabilities: np.ndarray) -> Answer:
        """Answer with the class held and its probability in this window."""
        best = int(probabilities.argmax())
        held, challenger, wins = memory or (best, best, 0)
        beaten = best != held and probabilities[best] - probabilities[held] >= self.margin
        wins = (wins if best == challenger else 0) + 1 if beaten else 0
        if wins >= self.n:
            held, wins = best, 0
        return Answer(held, float(probabilities[held]), (held, best, wins))


def _check_count(name: str, count: int) -> None:
    if count < 1:
        raise ConfigError(f"smoothing {name} n", "must be 1 or more", count, "Give a number of windows")
