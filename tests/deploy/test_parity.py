"""The gate's arithmetic, on functions whose difference is known."""

import dataclasses
from collections import Counter

import numpy as np
import pytest
import torch
from torch import nn

from deploy.parity import BATCHES, check_graph, check_weights, compare_answers, compare_graphs
from shared_peft.errors import ExportError

EXAMPLES = torch.randn(9, 4, generator=torch.Generator().manual_seed(0))


def _measure(run, examples=EXAMPLES, weights="trained"):
    return compare_answers(nn.Identity(), run, examples, weights)


def test_known_offset_is_measured_at_every_batch():
    measured = _measure(lambda x: x + np.float32(0.25))
    assert [row.batch for row in measured.batches] == list(BATCHES)
    for row in measured.batches:
        assert row.max_abs_difference == pytest.approx(0.25, abs=1e-6)
        assert row.top1_agreement == 1.0
    assert measured.largest_logit == pytest.approx(float(EXAMPLES.abs().max()))
    assert measured.spread == pytest.approx(float((EXAMPLES.amax(0) - EXAMPLES.amin(0)).max()))


def test_size_of_random_weights_cancels_out_and_that_of_trained_ones_does_not():
    def run(x):
        return x * np.float32(1 + 1e-3)

    large = EXAMPLES * 1000
    largest = float(large.abs().max())
    assert _measure(run, large).batches[0].max_abs_difference == pytest.approx(1e-3 * largest, rel=1e-2)
    measured = _measure(run, large, "randomised")
    assert measured.scale == pytest.approx(largest / 10)
    assert measured.batches[0].max_abs_difference == pytest.approx(1e-2, rel=1e-2)


def test_swapped_classes_lower_the_agreement():
    measured = _measure(lambda x: x[:, ::-1])
    same = (EXAMPLES.argmax(1) == EXAMPLES.flip(1).argmax(1)).float()
    expected = float(same[torch.arange(28) % 9].mean())
    assert measured.batches[0].top1_agreement == pytest.approx(expected)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_answers_that_are_not_finite_fail(bad):
    with pytest.raises(ExportError, match=r"trained weights, batch 1: max \|difference\| .* got inf"):
        check_weights(_measure(lambda x: x * np.float32(bad)))


def test_fault_at_one_batch_size_only_is_found():
    with pytest.raises(ExportError, match="batch 7: max"):
        check_weights(_measure(lambda x: x + np.float32(len(x) == 7)))


def test_one_changed_first_class_fails_even_within_tolerance():
    examples = torch.tensor([[1.0, 1.00001], [0.0, 3.0]])
    with pytest.raises(ExportError, match="top-1 agreement with PyTorch must be 100 %, got 50.00 %"):
        check_weights(_measure(lambda x: x + np.float32([2e-5, 0]), examples))


def test_answers_of_another_shape_are_refused():
    with pytest.raises(ExportError, match=r"logits must have shape \(1, 4\), got \(1, 3\)"):
        _measure(lambda x: x[:, :3])


def test_examples_that_are_all_alike_compare_nothing():
    measured = _measure(lambda x: x, EXAMPLES[:1], "randomised")
    with pytest.raises(ExportError, match="logits must differ by at least 0.001 between inputs"):
        check_weights(measured)


def test_exact_answers_pass():
    check_weights(_measure(lambda x: x, weights="randomised"))


def test_equal_graphs_pass_and_an_exchanged_operator_does_not():
    graph = compare_graphs(Counter(Gemm=2, Relu=1), Counter(Gemm=2, Relu=1))
    check_graph(graph)
    assert graph.operations_added == {}
    exchanged = compare_graphs(Counter(Gemm=2, Mul=1), Counter(Gemm=2, Relu=1))
    assert exchanged.nodes == exchanged.base_nodes == 3
    with pytest.raises(ExportError, match=r"base model's 3 nodes, got 3 \(Mul \+1, Relu -1\)"):
        check_graph(exchanged)


def test_fewer_nodes_fail_too():
    graph = compare_graphs(Counter(Gemm=1), Counter(Gemm=2))
    with pytest.raises(ExportError, match=r"got 1 \(Gemm -1\)"):
        check_graph(graph)
    assert dataclasses.asdict(graph)["base_nodes"] == 2
