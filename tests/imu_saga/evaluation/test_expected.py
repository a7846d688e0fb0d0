"""The smooth macro-F1: its counted limit, and what it sees that the counted one does not."""

import pytest
import torch
from sklearn.metrics import f1_score

from imu_saga.evaluation.expected import expected_macro_f1


@pytest.mark.parametrize("seed", range(20))
def test_certain_answers_give_the_counted_macro_f1(seed):
    generator = torch.Generator().manual_seed(seed)
    labels, answers = torch.randint(4, (2, 30), generator=generator)
    certain = torch.nn.functional.one_hot(answers, 4).float()
    expected = f1_score(labels, answers, average="macro", labels=range(4), zero_division=0)
    assert expected_macro_f1(certain, labels) == pytest.approx(expected, abs=1e-6)


def test_it_is_the_macro_f1_of_the_mean_confusion_of_drawn_answers():
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(3, (25,), generator=generator)
    probabilities = torch.rand(25, 3, generator=generator).softmax(1)
    drawn = torch.multinomial(probabilities, 40_000, replacement=True, generator=generator)
    confusion = torch.zeros(3, 3)
    for true in range(3):
        confusion[true] = torch.bincount(drawn[labels == true].flatten(), minlength=3) / drawn.shape[1]
    f1 = 2 * confusion.diag() / (confusion.sum(0) + confusion.sum(1))
    assert expected_macro_f1(probabilities, labels) == pytest.approx(float(f1.mean()), abs=1e-3)


def test_a_surer_right_answer_scores_higher_though_no_answer_turns_over():
    labels = torch.tensor([0, 1])
    unsure, sure = (torch.tensor([[p, 1 - p], [0.3, 0.7]]) for p in (0.6, 0.9))
    assert expected_macro_f1(sure, labels) > expected_macro_f1(unsure, labels)


def test_a_class_that_neither_occurs_nor_is_expected_counts_nothing():
    assert expected_macro_f1(torch.tensor([[1.0, 0, 0], [0, 1.0, 0]]), torch.tensor([0, 1])) == pytest.approx(2 / 3)
