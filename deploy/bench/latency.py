"""Latency of one row, all files taking turns, so that whatever else the machine does touches all of them alike."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from deploy.bench.call import open_call
from deploy.model_files import ModelFile
from shared_peft.progress import Bar

_WARM_UP = 5


@dataclass(frozen=True)
class Latency:
    """Times of one row.

    Args:
        threads: threads within an operator.
        median_ms: median [ms].
        p95_ms: 95th percentile [ms].
    """

    threads: int
    median_ms: float
    p95_ms: float


def latencies(files: Sequence[ModelFile], threads: int, *, rounds: int, progress: bool = False) -> list[Latency]:
    """Return the latency of every file.

    Args:
        files: of verified bundles.
        threads: threads within an operator.
        rounds: calls of each file that count; the order moves on by one each round.
        progress: show a progress bar.
    """
    calls = [open_call(file, threads=threads) for file in files]
    for call in calls:
        for _ in range(_WARM_UP):
            call()
    seconds = np.empty((rounds, len(calls)))
    for number in Bar(range(rounds), desc=f"{threads} thread(s)", unit="round", disable=not progress):
        for place in np.roll(np.arange(len(calls)), number):
            began = time.perf_counter()
            calls[place]()
            seconds[number, place] = time.perf_counter() - began
    medians, slow = 1e3 * np.median(seconds, axis=0), 1e3 * np.percentile(seconds, 95, axis=0)
    return [Latency(threads, float(one), float(other)) for one, other in zip(medians, slow, strict=True)]
