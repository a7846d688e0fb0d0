"""Several labels an image: scores against scikit-learn, HOMI against its formula, a run from files to answers."""

import json

import numpy as np
import pytest
import torch

from shared_peft.errors import ConfigError, DataError, UnknownNameError
from vision.backbones import build_backbone, build_from_spec, correlate
from vision.correlations import LABEL_CORRELATIONS, CorrelatedHead, penalties
from vision.correlations.homi import RECONSTRUCTION, RIDGE, SMOOTHNESS, Homi, similar_images
from vision.datasets.labelled import LabelledImages
from vision.fit import FitSettings, fit
from vision.tasks import TASKS, task_of
from vision.tasks.multi_label import average_precision, score_labels
from vision.transforms import Pixels


def drawn(rows: int = 60, classes: int = 5, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits with many equal values, and labels that hang together, of which the last class never occurs."""
    generator = torch.Generator().manual_seed(seed)
    base = torch.rand(rows, 1, generator=generator)
    labels = (0.7 * base + 0.3 * torch.rand(rows, classes, generator=generator) > 0.55).float()
    labels[:, -1] = 0
    logits = (labels + torch.randn(rows, classes, generator=generator)).mul(2).round() / 2
    return logits, labels


@pytest.mark.filterwarnings("ignore:No positive class found")
def test_scores_are_those_of_scikit_learn():
    from sklearn.metrics import accuracy_score, average_precision_score, f1_score

    logits, labels = drawn()
    found = score_labels(logits, labels, 5)
    truth, scores, said = labels.numpy().astype(int), logits.numpy(), (logits > 0).numpy().astype(int)
    per_class = [average_precision_score(truth[:, column], scores[:, column]) for column in range(5)]
    assert found.per_class_average_precision == pytest.approx(per_class)
    assert found.mean_average_precision == pytest.approx(average_precision_score(truth[:, :4], scores[:, :4]))
    assert found.micro_f1 == pytest.approx(f1_score(truth, said, average="micro"))
    assert found.per_class_f1 == pytest.approx(f1_score(truth, said, average=None, zero_division=0).tolist())
    assert found.macro_f1 == pytest.approx(f1_score(truth, said, average="macro", zero_division=0))
    assert found.accuracy == pytest.approx(accuracy_score(truth, said))
    assert found.count == 60


def test_average_precision_of_a_perfect_and_of_a_worst_order_is_known():
    labels = torch.tensor([1.0, 1.0, 0.0, 0.0])
    assert average_precision(torch.tensor([4.0, 3.0, 2.0, 1.0]), labels) == 1.0
    assert average_precision(torch.tensor([1.0, 2.0, 3.0, 4.0]), labels) == pytest.approx((1 / 3 + 2 / 4) / 2)
    assert average_precision(torch.zeros(4), labels) == 0.5


def test_the_loss_is_the_mean_binary_cross_entropy_of_the_smoothed_labels():
    logits, labels = drawn()
    p, y = torch.sigmoid(logits.double()), 0.9 * labels.double() + 0.05
    expected = -(y * p.log() + (1 - y) * (1 - p).log()).mean()
    assert float(TASKS.get("multi-label").loss(logits, labels, 0.1)) == pytest.approx(float(expected), rel=1e-5)


def test_the_labels_say_their_task():
    assert task_of(torch.tensor([0, 1])) == "single-label"
    assert task_of(torch.zeros(2, 3)) == "multi-label"


def test_homi_starts_at_the_ridge_regression_of_the_labels_on_themselves():
    from sklearn.linear_model import Ridge

    labels = drawn()[1]
    homi = Homi(5)
    homi.start(labels)
    signed = 2 * labels.numpy() - 1
    given = np.concatenate([signed, np.ones((60, 1))], axis=1)
    reference = Ridge(alpha=RIDGE / RECONSTRUCTION, fit_intercept=False).fit(given, signed).coef_.T
    np.testing.assert_allclose(homi.correlation.detach().numpy(), reference[:-1], atol=1e-5)
    np.testing.assert_allclose(homi.offset.detach().numpy(), reference[-1], atol=1e-5)


def test_the_penalty_of_homi_is_its_formula_and_is_smallest_at_the_start_without_neighbours():
    labels = drawn()[1]
    homi = Homi(5)
    homi.start(labels)
    features, answer = torch.randn(60, 7), torch.randn(60, 5)
    found = homi.penalty(labels, features, answer)
    signed, graph, n = 2 * labels - 1, similar_images(features), 60
    rest = signed - signed @ homi.correlation - homi.offset
    ridge = (homi.correlation**2).sum() + (homi.offset**2).sum()
    laplacian = graph.sum(1).diag() - graph
    smooth = 2 * (answer.T @ laplacian @ answer).trace() / graph.sum()
    expected = (RECONSTRUCTION * (rest**2).sum() / n + RIDGE * ridge / n + SMOOTHNESS * smooth) / 5
    torch.testing.assert_close(found, expected)
    found.backward()
    assert homi.correlation.grad.abs().max() < 1e-6
    assert homi.offset.grad.abs().max() < 1e-6


def test_the_graph_joins_each_image_with_its_nearest_by_correlation():
    features = torch.randn(30, 6, generator=torch.Generator().manual_seed(2))
    graph = similar_images(features)
    reference = np.corrcoef(features.numpy())
    np.fill_diagonal(reference, 0)
    directed = np.zeros_like(reference)
    for row, values in enumerate(reference):
        nearest = np.argsort(-values)[:10]
        directed[row, nearest] = values[nearest].clip(0)
    np.testing.assert_allclose(graph.numpy(), (directed + directed.T) / 2, atol=1e-5)


@pytest.mark.parametrize("name", LABEL_CORRELATIONS.names())
@pytest.mark.parametrize("model", ["vit_cifar10", "vit_cifar10_postnorm", "torchvision/squeezenet1_1"])
def test_a_correlated_backbone_is_built_again_from_its_spec(name, model):
    backbone = correlate(build_backbone(model, 5, image_size=32), name, drawn()[1])
    again = build_from_spec(backbone.spec).model
    again.load_state_dict(backbone.model.state_dict())
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(again.eval()(images), backbone.model.eval()(images))
    assert backbone.model(images).shape == (2, 5)
    head = backbone.model.get_submodule(backbone.head[0])
    assert isinstance(head, CorrelatedHead)
    plain = head.classifier(torch.ones(1, *((512, 1, 1) if "squeeze" in model else (head.classifier.in_features,))))
    expected = plain.flatten(1) @ head.correlation.correlation + head.correlation.offset
    torch.testing.assert_close(head.correlation(plain).flatten(1), expected)


def linked_pixels(count: int, seed: int) -> Pixels:
    """Images whose left half is noise around a brightness for label 0; label 1 is there exactly when label 0 is."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 2, (count, 3), generator=generator).float()
    labels[:, 1] = labels[:, 0]
    values = torch.randint(0, 120, (count, 1, 8, 8), generator=generator)
    values[:, :, :, :4] += (120 * labels[:, 0]).long()[:, None, None, None]
    values[:, :, 4:, 4:] += (120 * labels[:, 2]).long()[:, None, None, None]
    return Pixels(values.to(torch.uint8), labels, tuple(map(str, range(count))))


@pytest.mark.parametrize("correlation", [None, *LABEL_CORRELATIONS.names()])
@pytest.mark.parametrize("method", ["full", "lora"])
def test_several_labels_are_learned(small_conv_run, method, correlation):
    from vision.evaluate import evaluate

    backbone = build_backbone("small_conv", 3, checkpoint=small_conv_run, new_head=True)
    train = linked_pixels(40, 0)
    if correlation is not None:
        backbone = correlate(backbone, correlation, train.labels)
    adapter = {"r": 4} if method == "lora" else {}
    settings = FitSettings(method, adapter, epochs=25, batch_size=20, augment="none")
    model = fit(backbone, train, settings).trainee.model
    scores = evaluate(model, linked_pixels(60, 1), backbone.data, 3)
    assert scores.mean_average_precision > 0.9
    if correlation is not None:
        head = next(m for m in model.modules() if isinstance(m, CorrelatedHead) and m.classifier.weight.requires_grad)
        start = Homi(3)
        start.start(train.labels)
        assert (head.correlation.correlation - start.correlation).abs().max() > 1e-3
        assert float(penalties(model, train.labels)) == 0.0  # each batch counts once


def test_a_run_of_several_labels_says_so_everywhere(small_conv_run, tmp_path, monkeypatch):
    import vision.finetune as finetune_module
    from shared_peft.command import run_commands
    from vision.commands import COMMANDS
    from vision.datasets import ImageData
    from vision.evaluate import evaluate_run
    from vision.finetune import FinetuneConfig, finetune
    from vision.trained import load_run, read_description

    train, test = linked_pixels(30, 0), linked_pixels(20, 1)
    sides = [LabelledImages(p.names, p.labels, ("a", "b", "c"), lambda row, p=p: p.values[row]) for p in (train, test)]
    data = ImageData("linked", *sides)
    monkeypatch.setattr(finetune_module, "open_images", lambda *_: data)
    monkeypatch.setattr("vision.evaluate.open_images", lambda *_: data)
    asked = FinetuneConfig(
        "small_conv", "linked", tmp_path / "run", checkpoint=small_conv_run, shots=0, epochs=8, label_correlation="homi"
    )
    results = finetune(asked).results
    assert results["task"] == read_description(tmp_path / "run").task == "multi-label"
    assert json.loads((tmp_path / "run" / "results.json").read_text()) == results
    assert evaluate_run(tmp_path / "run", "linked")[1].micro_f1 == results["micro_f1"]
    trained = load_run(tmp_path / "run")
    assert trained.model(trained.examples).shape == (8, 3)
    assert run_commands("vision", COMMANDS, ["evaluate", str(tmp_path / "run"), "--data", "linked"]) == 0
    one_label = LabelledImages(test.names, test.labels[:, 0].long(), ("a", "b", "c"), sides[1].read)
    monkeypatch.setattr("vision.evaluate.open_images", lambda *_: ImageData("linked", one_label, one_label))
    with pytest.raises(DataError, match="must be multi-label data, as the run's, got single-label"):
        evaluate_run(tmp_path / "run", "linked")


def test_an_unknown_label_correlation_is_refused_with_the_names():
    with pytest.raises(UnknownNameError, match="label correlation: name must be one of homi, got 'homy'"):
        correlate(build_backbone("small_conv", 5), "homy", drawn()[1])
    with pytest.raises(ConfigError, match="needs images with several labels, got one label an image"):
        correlate(build_backbone("small_conv", 5), "homi", torch.tensor([0, 1]))
