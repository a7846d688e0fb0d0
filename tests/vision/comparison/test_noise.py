"""What is within noise, against planted truth and closed forms."""

from functools import partial

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.metrics import average_precision_score

from shared_peft.training import Difference
from vision.comparison.noise import half_width, paired_differences
from vision.comparison.table import Row, against_best, best_of, verdict
from vision.tasks import TASKS

SINGLE, MULTI = TASKS.get("single-label"), TASKS.get("multi-label")


def accuracy(right: np.ndarray) -> partial:
    return partial(SINGLE.weighted, torch.from_numpy(right), torch.empty(0))


@pytest.mark.parametrize(("draws", "told"), [(2, 0.7), (5, 0.95)])  # two draws tell little of what draws do
def test_equal_rows_are_rarely_told_apart_and_a_better_one_is_found(draws, told):
    """Answers hang on the image, on the draw of the shots and on chance; two rows are equally good, one is better."""
    generator = np.random.default_rng(draws)
    trials, images, false, found = 100, 150, 0, 0
    for _ in range(trials):
        difficulty = generator.standard_normal(images)
        rows = {}
        for name, better in (("equal", 0.0), ("same", 0.0), ("better", 1.5)):
            luck = 0.1 * generator.standard_normal((draws, 1))
            chance = generator.standard_normal((draws, images))
            rows[name] = [accuracy(right) for right in difficulty + luck + chance + better > 0]
        pairs = {(pair.row, pair.other): pair for pair in paired_differences(rows, images, 1, generator)}
        false += not pairs["equal", "same"].within_noise
        found += pairs["same", "better"].mean < 0 and not pairs["same", "better"].within_noise
    allowed = stats.binom.ppf(0.999, trials, 0.05)
    assert false <= allowed
    assert found >= told * trials


def test_where_only_the_draws_differ_the_interval_is_that_of_a_paired_t_test():
    generator = np.random.default_rng(0)
    first, second = generator.standard_normal((2, 5))
    expected = stats.ttest_rel(first, second).confidence_interval(0.95)
    mean, half = (first - second).mean(), half_width(first - second, np.zeros(1000), 10**12)
    assert (mean - half, mean + half) == pytest.approx((expected.low, expected.high), rel=1e-9)


def test_where_only_the_images_differ_the_interval_is_that_of_a_paired_t_test_over_them():
    generator = np.random.default_rng(1)
    first, second = generator.random((2, 400)) > [[0.3], [0.4]]
    (pair,) = paired_differences({"a": [accuracy(first)], "b": [accuracy(second)]}, 400, 5, generator)
    expected = stats.ttest_rel(first.astype(float), second.astype(float)).confidence_interval(0.95)
    assert pair.mean == pytest.approx(first.mean() - second.mean(), abs=1e-12)
    half = (expected.high - expected.low) / 2
    assert (pair.high - pair.low) / 2 == pytest.approx(half, rel=0.07)  # three deviations of 1,000 resamples


def test_a_few_images_are_no_certainty_and_the_same_answers_differ_by_nothing():
    """Four images of 500 that one row alone has right: by the sign test p = 1/8; nine of them: p = 1/256."""
    right = np.random.default_rng(2).random(500) > 0.5
    wrong = np.flatnonzero(~right)
    rows = {"a": [accuracy(right)]}
    for count in (0, 4, 9):
        more = right.copy()
        more[wrong[:count]] = True
        rows[str(count)] = [accuracy(more)]
    pairs = {pair.other: pair for pair in paired_differences(rows, 500, 5, np.random.default_rng(3)) if pair.row == "a"}
    assert pairs["0"].mean == 0.0
    assert pairs["0"].high == pytest.approx(stats.t.ppf(0.975, 499) / 500)  # as if one image were told apart
    assert [pairs[count].within_noise for count in ("0", "4", "9")] == [True, True, False]


def test_a_weight_is_how_often_an_image_counts():
    generator = np.random.default_rng(4)
    logits = torch.from_numpy(generator.standard_normal((40, 3)).round(1))  # some scores are equal
    labels = torch.from_numpy(generator.integers(0, 2, (40, 3))).float()
    counts = generator.multinomial(40, np.full(40, 1 / 40), size=4)
    weights = torch.from_numpy(counts).double()
    found = MULTI.weighted(MULTI.evidence(logits, labels), labels, weights)
    for times, value in zip(counts, found.tolist(), strict=True):
        rows = np.repeat(np.arange(40), times)
        columns = [average_precision_score(labels[rows, c].numpy(), logits[rows, c].numpy()) for c in range(3)]
        assert value == pytest.approx(np.mean(columns), abs=1e-12)
    classes = torch.from_numpy(generator.integers(0, 3, 40))
    found = SINGLE.weighted(SINGLE.evidence(logits, classes), classes, weights)
    for times, value in zip(counts, found.tolist(), strict=True):
        rows = np.repeat(np.arange(40), times)
        assert value == pytest.approx(float((logits.argmax(1) == classes)[rows].double().mean()), abs=1e-12)


def test_a_row_is_told_from_the_best_of_its_shots_whichever_way_the_pair_was_taken():
    def row(method: str, score: float) -> Row:
        return Row(method, 5, score, 0.0, 0.0, 0.0, 10, 20, 0.1, "", 1.0, 0.1, 2)

    rows = [row("low", 0.5), row("high", 0.7), row("near", 0.69)]
    differences = [
        Difference("low", "high", 5, -0.2, -0.25, -0.15),
        Difference("low", "near", 5, -0.19, -0.2, -0.1),
        Difference("high", "near", 5, 0.01, -0.02, 0.04),
        Difference("low", "high", 9, 0.5, 0.4, 0.6),
    ]
    best = best_of(rows, 5)
    assert [verdict(against_best(each, best, differences)) for each in rows] == ["-20.0", "best", "within noise"]
    turned = against_best(rows[2], best, differences)
    assert turned == Difference("near", "high", 5, -0.01, -0.04, 0.02)
