"""Macro-F1 of probabilities: smooth where the few windows of a label budget make the counted one move in steps."""

from torch import Tensor
from torch.nn import functional


def expected_macro_f1(probabilities: Tensor, labels: Tensor) -> float:
    """Return macro-F1 of the expected confusion matrix of answers drawn from ``probabilities``.

    Entry (i, j) is the sum of the probabilities of class j over the windows of class i. Certain answers give the
    counted macro-F1; unlike that one it sees a change that turns no answer over.

    Args:
        probabilities: shape (windows, classes), rows sum to 1.
        labels: true classes, integers, shape (windows,).

    Returns:
        A number in [0, 1]; a class that neither occurs nor is expected counts 0.

    Example:
        >>> import torch
        >>> expected_macro_f1(torch.tensor([[0.75, 0.25], [0.25, 0.75]]), torch.tensor([0, 1]))
        0.75
    """
    classes = probabilities.shape[1]
    confusion = functional.one_hot(labels, classes).to(probabilities).T @ probabilities
    return float((2 * confusion.diag() / (confusion.sum(0) + confusion.sum(1)).clamp_min(1e-12)).mean())
