"""This machine's processor, through onnxruntime for Python and the bundle's own runner."""

import time

import numpy as np

from deploy.model_files import ModelFile
from deploy.place import PLACES, Engine, Place, PlaceOptions, Reply
from deploy.runtime import BundleRunner

_REPEATS = 9


@PLACES.register("cpu")
class Cpu(Place):
    """onnxruntime here: always there, and what every other place is compared with."""

    def engines(self, options: PlaceOptions) -> list[Engine]:
        """Return the one engine."""
        return [Engine("this CPU", "", answer)]


def answer(file: ModelFile) -> Reply:
    """Run a file's golden sample in this process, on one thread."""
    runner = BundleRunner(file.bundle, threads=1, variant=file.variant)
    task = file.task or runner.active
    row, seconds = file.sample.inputs[:1], []
    for _ in range(_REPEATS):
        began = time.perf_counter()
        runner.logits_of(task, row)
        seconds.append(time.perf_counter() - began)
    return Reply(runner.logits_of(task, file.sample.inputs), 1e3 * float(np.median(seconds)))
