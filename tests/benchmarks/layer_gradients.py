"""Our depthwise weight gradient and pointwise products beside the library's own, layer by layer.

Example:
    python -m tests.benchmarks.layer_gradients
"""

import statistics
import sys
import time
from collections.abc import Callable

import torch

from shared_peft import depthwise, pointwise

BATCH, ROUNDS = 8, 15
DEPTHWISE = ((72, 40, 5), (120, 20, 5), (960, 5, 5), (96, 40, 7), (192, 20, 7), (384, 10, 7), (768, 5, 7))
POINTWISE = ((16, 64, 80), (64, 24, 40), (40, 120, 20), (64, 256, 40), (256, 64, 40), (512, 128, 20))
_backward = torch.ops.aten.convolution_backward


def milliseconds(*functions: Callable[[], object]) -> list[float]:
    """Return the median time of each function; they take turns."""
    taken: list[list[float]] = [[] for _ in functions]
    for done in range(ROUNDS + 2):
        for function, times in zip(functions, taken, strict=True):
            began = time.perf_counter()
            function()
            if done > 1:
                times.append(1000 * (time.perf_counter() - began))
    return [statistics.median(times) for times in taken]


def main() -> None:
    """Print both tables."""
    torch.set_num_threads(2)
    lines = ["| depthwise weight gradient | library [ms] | ours [ms] |", "|---|---|---|"]
    for channels, size, kernel in DEPTHWISE:
        x, half = torch.randn(BATCH, channels, size, size), kernel // 2
        weight, options = torch.randn(channels, 1, kernel, kernel), ((1, 1), (half, half), (1, 1))
        asked = (None, *options, False, [0, 0], channels, [False, True, False])
        theirs, ours = milliseconds(
            lambda x=x, weight=weight, asked=asked: _backward(x, x, weight, *asked),
            lambda x=x, k=kernel, options=options: depthwise.weight_gradient(x, x, (k, k), *options),
        )
        lines.append(f"| {channels} channels, {size} x {size}, kernel {kernel} | {theirs:.2f} | {ours:.2f} |")
    lines += ["", "| pointwise convolution, forward | library [ms] | ours [ms] |", "|---|---|---|"]
    for inputs, outputs, size in POINTWISE:
        x, weight = torch.randn(BATCH, inputs, size, size), torch.randn(outputs, inputs, 1, 1)
        theirs, ours = milliseconds(
            lambda x=x, weight=weight: torch.conv2d(x, weight),
            lambda x=x, weight=weight: pointwise.convolve(x, weight, None),
        )
        lines.append(f"| {inputs} -> {outputs} channels, {size} x {size} | {theirs:.2f} | {ours:.2f} |")
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
