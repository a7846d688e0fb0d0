"""The order of an epoch: every row once, each order as likely as another, and a cost that ignores the count."""

import math
import time
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from shared_peft.training import epoch_order
from shared_peft.training.order import permuted


def whole(count: int, key: int) -> np.ndarray:
    return permuted(np.arange(count, dtype=np.uint64), count, key=key)


@settings(deadline=None, max_examples=100)
@given(st.integers(1, 3000), st.integers(-(2**70), 2**70))
def test_every_row_comes_exactly_once(count, key):
    assert sorted(whole(count, key).tolist()) == list(range(count))


@pytest.mark.parametrize("count", [2**20, 1_000_003])
def test_every_row_of_a_large_set_comes_exactly_once(count):
    assert (np.bincount(whole(count, key=7).astype(np.int64), minlength=count) == 1).all()


@pytest.mark.parametrize(("count", "draws"), [(2, 1000), (3, 2000), (4, 4000), (5, 4000), (7, 8000)])
def test_every_order_of_a_few_rows_is_as_likely_as_another(count, draws):
    drawn = Counter(tuple(whole(count, key).tolist()) for key in range(draws))
    counts = list(drawn.values()) + [0] * (math.factorial(count) - len(drawn))
    assert stats.chisquare(counts).pvalue > 1e-4


def test_two_neighbours_are_sent_to_every_pair_of_places_alike():
    counts = np.zeros((12, 12))
    for key in range(10_000):
        first, second = permuted(np.array([0, 1], np.uint64), 12, key=key).tolist()
        counts[first, second] += 1
    assert stats.chisquare(counts[~np.eye(12, dtype=bool)]).pvalue > 1e-4


def test_a_shuffled_row_tells_nothing_about_its_place_nor_its_neighbour():
    count = 200_000
    order = whole(count, key=3).astype(np.float64)
    assert stats.kstest(order[:5000] / count, "uniform").pvalue > 1e-4
    for other in (np.arange(count - 1), order[1:]):
        assert abs(np.corrcoef(order[:-1], other)[0, 1]) < 4 / math.sqrt(count)
    rises = (np.diff(order) > 0).mean()
    assert abs(rises - 0.5) < 4 * math.sqrt(1 / 12 / count)  # a random order rises count / 2 +- sqrt(count / 12) times


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 300), st.integers(1, 64), st.integers(0, 40), st.integers(0, 2**40))
def test_batches_are_the_slices_of_one_shuffle_an_epoch(count, size, index, seed):
    per_epoch = max(1, count // size)
    epoch, position = divmod(index, per_epoch)
    expected = whole(count, seed * 1_000_003 + epoch)[position * size : (position + 1) * size]
    found = epoch_order(count, size, index, seed)
    assert found.dtype == torch.int64
    assert found.tolist() == expected.tolist()
    assert len(found) == min(size, count)


def test_another_epoch_and_another_seed_give_another_order():
    orders = [tuple(epoch_order(50, 50, index, seed).tolist()) for index in range(4) for seed in range(4)]
    assert len(set(orders)) == 16


def test_a_batch_of_a_trillion_rows_costs_what_one_of_a_thousand_costs():
    def seconds(count: int) -> float:
        taken = []
        for index in range(20):
            start = time.process_time()
            epoch_order(count, 128, index, 0)
            taken.append(time.process_time() - start)
        return min(taken)

    assert seconds(10**12) < 3 * seconds(10**3) + 1e-3
    assert int(epoch_order(10**12, 128, 10**9, 5).max()) < 10**12


@pytest.mark.parametrize(
    ("key", "order"),
    [
        (0, [7, 6, 0, 2, 9, 8, 5, 4, 1, 3]),
        (7, [0, 1, 7, 9, 8, 6, 3, 5, 2, 4]),
        (-1, [0, 9, 8, 4, 5, 6, 2, 3, 7, 1]),
        (2**63 + 7, [1, 8, 9, 3, 0, 7, 4, 6, 5, 2]),
        (2**64 + 7, [0, 1, 7, 9, 8, 6, 3, 5, 2, 4]),
    ],
)
def test_a_run_begun_by_an_earlier_version_goes_on_in_its_order(key, order):
    assert whole(10, key).tolist() == order
