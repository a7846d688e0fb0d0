"""Does the file answer as the adapted PyTorch model does? Measured on trained and on randomised weights."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import nn

from shared_peft.errors import ExportError

TOLERANCE = 1e-4
BATCHES = (1, 4, 7)
_ROWS = 28
_LARGEST_RANDOM_LOGIT = 10.0
_LEAST_SPREAD = 10 * TOLERANCE

Runner = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class BatchParity:
    """One batch size.

    Args:
        batch: rows given at once.
        rows: rows compared in all.
        max_abs_difference: largest difference between two logits, divided by the scale.
        top1_agreement: share of rows with the same first class, in [0, 1].
    """

    batch: int
    rows: int
    max_abs_difference: float
    top1_agreement: float


@dataclass(frozen=True)
class WeightsParity:
    """All batch sizes, for one set of weights.

    Args:
        weights: "trained" or "randomised".
        largest_logit: largest absolute logit seen.
        scale: what logits are divided by before they are compared: 1 for trained weights; for random ones, whose size
            means nothing, what brings the largest logit down to 10 (as dividing the head's weights by it would).
        spread: largest range of a class's logit over the rows, divided by the scale.
        batches: one entry a batch size.
    """

    weights: str
    largest_logit: float
    scale: float
    spread: float
    batches: tuple[BatchParity, ...]

    @property
    def worst(self) -> float:
        """Largest difference of all batch sizes."""
        return max(row.max_abs_difference for row in self.batches)


@dataclass(frozen=True)
class GraphParity:
    """The merged graph beside that of the same architecture without adapters.

    Args:
        nodes: nodes in the file's graph.
        base_nodes: nodes in the unadapted model's graph.
        operations: occurrences of each operator in the file's graph.
        operations_added: by how much an operator's count differs from the base's; empty where none does.
    """

    nodes: int
    base_nodes: int
    operations: dict[str, int]
    operations_added: dict[str, int]


@dataclass(frozen=True)
class ParityReport:
    """Everything the gate looks at.

    Args:
        tolerance: largest difference allowed.
        trained: on the run's own weights.
        randomised: on random weights and statistics, where a fault cannot hide.
        graph: node counts.
    """

    tolerance: float
    trained: WeightsParity
    randomised: WeightsParity
    graph: GraphParity


def compare_answers(model: nn.Module, run: Runner, examples: torch.Tensor, weights: str) -> WeightsParity:
    """Compare a file's logits with PyTorch's, at batches of 1, 4 and 7 rows.

    Args:
        model: the PyTorch model in eval mode, adapters not merged.
        run: the exported file as a function on arrays.
        examples: inputs, shape (n, *input_shape); used again from the start where there are too few.
        weights: "trained" or "randomised".
    """
    rows = examples.cpu()
    rows = rows[torch.arange(max(_ROWS, len(rows))) % len(rows)]
    batches, seen = [], []
    for batch in BATCHES:
        difference, agreeing, count = 0.0, 0, 0
        for start in range(0, _ROWS - batch + 1, batch):
            inputs = rows[start : start + batch]
            with torch.no_grad():
                expected = model(inputs).numpy()
            got = run(inputs.numpy())
            difference = max(difference, _largest_difference(expected, got, batch))
            agreeing += int((expected.argmax(-1) == got.argmax(-1)).sum())
            count += batch
            seen.append(expected)
        batches.append(BatchParity(batch, count, difference, agreeing / count))
    logits = np.concatenate(seen)
    largest, spread = float(np.abs(logits).max()), float(np.ptp(logits, axis=0).max())
    scale = max(1.0, largest / _LARGEST_RANDOM_LOGIT) if weights == "randomised" else 1.0
    scaled = (replace(row, max_abs_difference=row.max_abs_difference / scale) for row in batches)
    return WeightsParity(weights, largest, scale, spread / scale, tuple(scaled))


def _largest_difference(expected: np.ndarray, got: np.ndarray, batch: int) -> float:
    if expected.shape != got.shape:
        where = f"parity, batch {batch}"
        raise ExportError(
            where, f"logits must have shape {expected.shape}", got.shape, "Report the model's architecture"
        )
    difference = float(np.abs(expected.astype(np.float64) - got.astype(np.float64)).max())
    return difference if np.isfinite(difference) else float("inf")


def compare_graphs(operations: Counter[str], base_operations: Counter[str]) -> GraphParity:
    """Compare operator counts of a merged model's graph with those of its base architecture.

    Example:
        >>> compare_graphs(Counter(Gemm=2, Mul=1), Counter(Gemm=2)).operations_added
        {'Mul': 1}
    """
    names = sorted(operations.keys() | base_operations.keys())
    added = {name: operations[name] - base_operations[name] for name in names}
    return GraphParity(
        operations.total(),
        base_operations.total(),
        {name: operations[name] for name in names if operations[name]},
        {name: count for name, count in added.items() if count},
    )


def check_weights(measured: WeightsParity) -> None:
    """Raise ExportError, naming the number that failed, where answers are not PyTorch's."""
    for row in measured.batches:
        where = f"parity gate, {measured.weights} weights, batch {row.batch}"
        if not row.max_abs_difference <= TOLERANCE:
            must = f"max |difference| to PyTorch must be at most {TOLERANCE:.4f}"
            raise ExportError(where, must, f"{row.max_abs_difference:.3g}", "Keep the PyTorch model; report the layer")
        if row.top1_agreement != 1.0:
            must = "top-1 agreement with PyTorch must be 100 %"
            raise ExportError(where, must, f"{100 * row.top1_agreement:.2f} %", "Keep the PyTorch model")
    if measured.weights == "randomised" and not measured.spread >= _LEAST_SPREAD:
        must = f"logits must differ by at least {_LEAST_SPREAD:g} between inputs, or nothing is compared"
        fix = "Give the run examples that differ"
        raise ExportError("parity gate, randomised weights", must, f"{measured.spread:.3g}", fix)


def check_graph(graph: GraphParity) -> None:
    """Raise ExportError where the merged graph is not the base model's, operator by operator."""
    if graph.nodes != graph.base_nodes or graph.operations_added:
        changed = ", ".join(f"{name} {count:+d}" for name, count in graph.operations_added.items())
        must = f"the merged graph must have the base model's {graph.base_nodes} nodes"
        fix = "Use an adapter method that merges into the weights"
        raise ExportError("parity gate, graph", must, f"{graph.nodes} ({changed})", fix)
