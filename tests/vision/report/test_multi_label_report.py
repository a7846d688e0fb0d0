"""Several labels an image: the report tells the run's own numbers, and every yes or no is an answer."""

import json
import re

import numpy as np
import pytest
import torch

from shared_peft.errors import DataError
from vision.datasets import open_images
from vision.evaluate import predict_logits
from vision.finetune import FinetuneConfig, finetune
from vision.predict import predict
from vision.report.answers import answers_of
from vision.report.explain import ReportSettings, explain_run
from vision.trained import load_model, read_description
from vision.transforms import Pixels, load_pixels

LABELS = {"blue": "cold|blue", "green": "", "red": "warm"}
QUICK = ReportSettings(mistakes=4, maps=2, points=12, projection="pca")


@pytest.fixture
def labelled(colour_folder):
    """The coloured images as a csv file with several labels, or none, each."""
    rows = [
        f"{path.relative_to(colour_folder)},{LABELS[path.parent.name]},{path.parent.parent.name}"
        for path in sorted(colour_folder.rglob("*.png"))
    ]
    (colour_folder / "list.csv").write_text("\n".join(["path,label,split", *rows]) + "\n")
    return colour_folder / "list.csv"


def test_the_report_of_a_run_tells_its_scores_and_draws_no_confusion_matrix(small_conv_run, labelled, tmp_path):
    run, options = tmp_path / "run", {"shots": 4, "epochs": 2, "method": "full"}
    results = finetune(FinetuneConfig("small_conv", str(labelled), run, checkpoint=small_conv_run, **options)).results
    made = explain_run(run, str(labelled), tmp_path / "out", QUICK)
    shown = made.page.read_text(encoding="utf-8")
    values = [float(value) for value in re.findall(r'<data value="(.*?)"', shown)]
    assert values[:3] == [results[name] for name in ("mean_average_precision", "accuracy", "macro_f1")]
    assert json.loads((run / "results.json").read_text())["accuracy"] == made.scores.accuracy
    assert "What is taken for what" not in shown
    assert not (tmp_path / "out" / "confusion.png").exists()
    rows = re.findall(r'<th scope="row">(blue|cold|warm)</th>.*?</tr>', shown)
    assert rows == ["blue", "cold", "warm"]
    single = labelled.with_name("single.csv")
    single.write_text(labelled.read_text().replace("cold|blue", "blue").replace(",,", ",cold,"))
    with pytest.raises(DataError, match="must be multi-label data, as the run's, got single-label"):
        explain_run(run, str(single), tmp_path / "other", QUICK)
    _predictions_are_sigmoids(run, labelled)


def _predictions_are_sigmoids(run, labelled):
    """Each class is a question of its own: probabilities need not sum to 1."""
    description, test = read_description(run), open_images(str(labelled)).test
    pixels = load_pixels(test, description.data)
    logits = predict_logits(load_model(run, description), pixels.values, description.data).double().numpy()
    found = predict(run, [labelled.parent / "test"], top=3).predictions
    by_path = {row.path: dict(row.ranked) for row in found}
    for name, row in zip(pixels.names, 1 / (1 + np.exp(-logits)), strict=True):
        shares = next(shares for path, shares in by_path.items() if path.endswith(name[-12:]))
        np.testing.assert_allclose([shares[label] for label in description.classes], row, atol=1e-5)


def answers(logits: list[list[float]], labels: list[list[float]]):
    count = len(logits)
    pixels = Pixels(torch.zeros(count, 1, 2, 2, dtype=torch.uint8), torch.tensor(labels), ("",) * count)
    return answers_of(pixels, ("cat", "dog"), torch.tensor(logits), "multi-label")


def test_every_wrong_yes_or_no_is_a_mistake_of_its_own_by_confidence():
    found = answers([[2.0, -1.0], [-3.0, 0.5]], [[0.0, 1.0], [1.0, 1.0]]).worst_mistakes(9)
    told = [(mistake.row, mistake.answered, mistake.true) for mistake in found]
    assert told == [(1, "no cat", "cat, dog"), (0, "cat", "dog"), (0, "no dog", "dog")]
    expected = [1 / (1 + np.exp(-size)) for size in (3, 2, 1)]
    assert [mistake.confidence for mistake in found] == pytest.approx(expected)


def test_images_are_coloured_by_their_combination_of_labels_the_most_frequent_first():
    labels = [[1.0, 0.0], [1.0, 1.0], [1.0, 1.0], [0.0, 0.0], [1.0, 1.0], [0.0, 0.0]]
    groups, names = answers([[0.0, 0.0]] * 6, labels).groups()
    assert names == ("cat, dog", "nothing", "cat")
    assert groups.tolist() == [2, 0, 0, 1, 0, 1]


def test_rare_combinations_share_a_colour():
    labels = torch.tensor([[float(bit) for bit in f"{row:04b}"] for row in range(16)])
    pixels = Pixels(torch.zeros(16, 1, 2, 2, dtype=torch.uint8), labels, ("",) * 16)
    groups, names = answers_of(pixels, tuple("abcd"), torch.zeros(16, 4), "multi-label").groups()
    assert names[-1] == "others"
    assert len(names) == 10
    assert torch.bincount(groups).tolist() == [1] * 9 + [7]
