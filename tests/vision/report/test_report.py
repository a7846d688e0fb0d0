"""A report tells the run's own numbers, escapes every name, and needs nothing but itself."""

import json
import re
import shutil
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import precision_recall_fscore_support

from shared_peft.command import run_commands
from shared_peft.errors import ConfigError
from vision.commands import COMMANDS
from vision.datasets import open_images
from vision.evaluate import predict_logits
from vision.features import head_inputs
from vision.finetune import FinetuneConfig, finetune
from vision.report.answers import answers_of
from vision.report.before import model_before
from vision.report.calibration import reliability, wilson_interval
from vision.report.explain import ReportSettings, explain_run
from vision.report.features import neighbour_agreement, on_a_plane
from vision.report.figure import label_text
from vision.report.page import Section, Tile, page, plain_cell, table
from vision.report.pictures.learning_curve import curve_names
from vision.trained import load_model, load_run, read_description
from vision.transforms import load_pixels

pytestmark = pytest.mark.filterwarnings("ignore:ranks lowered")
HOSTILE = "<script>alert('$x$ & \"y\"')<"
QUICK = ReportSettings(mistakes=4, maps=2, points=30, projection="pca")


def call(*words: object) -> int:
    return run_commands("vision", COMMANDS, [str(word) for word in words])


@pytest.fixture(scope="module")
def run(small_conv_run, tmp_path_factory):
    """An adapter run on three digits."""
    out = tmp_path_factory.mktemp("report") / "run"
    finetune(
        FinetuneConfig(
            "small_conv", "digits", out, checkpoint=small_conv_run, classes=("3", "8", "9"), shots=4, epochs=4,
            batch_size=4, adapter=("r=2",), method="flora",
        )
    )  # fmt: skip
    return out


@pytest.fixture(scope="module")
def made(run, tmp_path_factory):
    """Its report."""
    return explain_run(run, "digits", tmp_path_factory.mktemp("out") / "report", QUICK)


class Reader(HTMLParser):
    """Keeps tags, the numbers of tables and tiles, and checks that tags close in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.open: list[str] = []
        self.rows: list[list[str]] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag == "tr":
            self.rows.append([])
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if {"td", "th"} & set(self.open):
            self.rows[-1].append(data)

    def all(self, tag: str) -> list[dict]:
        return [attributes for name, attributes in self.tags if name == tag]


def text_of(made) -> str:
    return made.page.read_text(encoding="utf-8")


class TestNumbers:
    """What the page says is what results.json says."""

    def test_tiles_hold_the_scores_in_full(self, run, made):
        results = json.loads((run / "results.json").read_text())
        values = [float(entry["value"]) for entry in Reader(text_of(made)).all("data")][:4]
        assert values[0] == results["accuracy"] == made.scores.accuracy
        assert values[1] == results["macro_f1"]
        assert values[3] == results["parameters"]["trainable"]
        assert f"accuracy {100 * results['accuracy']:.1f} %, the same as here" in text_of(made)

    def test_class_scores_are_those_of_scikit_learn(self, run, made):
        results = json.loads((run / "results.json").read_text())
        confusion = np.array(results["confusion"])
        true, answered = (np.repeat(grid.ravel(), confusion.ravel()) for grid in np.indices(confusion.shape))
        expected = precision_recall_fscore_support(true, answered, zero_division=0)
        rows = [row for row in Reader(text_of(made)).rows if row[0] in ("3", "8", "9") and len(row) == 5]
        for place, row in enumerate(rows):
            assert row[1:] == [str(expected[3][place]), *(f"{100 * score[place]:.1f} %" for score in expected[:3])]
        assert [f"{100 * f1:.1f} %" for f1 in results["per_class_f1"]] == [row[4] for row in rows]


class TestPage:
    """One file that asks for nothing and can be read aloud."""

    def test_nothing_is_fetched_or_run(self, made):
        reader = Reader(text_of(made))
        for _, attributes in reader.tags:
            for name in ("src", "href", "srcset"):
                assert attributes.get(name, "#").startswith(("#", "data:image/png;base64,"))
        assert not {"script", "link", "iframe", "object"} & {tag for tag, _ in reader.tags}
        assert not re.search(r"url\(|@import|https?://", text_of(made))
        assert "default-src 'none'" in reader.all("meta")[1]["content"]

    def test_pictures_lie_beside_the_page_and_in_it_with_words(self, made):
        pictures = Reader(text_of(made)).all("img")
        names = {path.stem for path in made.page.parent.glob("*.png")}
        assert names == {"mistakes", "confusion", "heat_maps", "features", "reliability", "learning_curve"}
        assert len(pictures) == len(names)
        for picture in pictures:
            assert len(picture["alt"]) > 20
            assert int(picture["width"]) > 200

    def test_every_table_has_a_caption_and_headings_with_a_scope(self, made):
        reader = Reader(text_of(made))
        assert len(reader.all("caption")) == len(reader.all("table")) == 4
        assert all(heading["scope"] in ("col", "row") for heading in reader.all("th"))
        assert reader.all("html") == [{"lang": "en"}]
        assert len(reader.all("h1")) == 1

    @pytest.mark.parametrize("scheme", ["light", "dark"])
    def test_words_stand_out_from_their_ground(self, made, scheme):
        """WCAG 2.2, success criterion 1.4.3: a contrast of at least 4.5 to 1."""
        blocks = re.findall(r":root \{(.*?)\}", text_of(made), re.DOTALL)
        colours = dict(re.findall(r"--(\w+): (#\w{6})", blocks[scheme == "dark"]))

        def luminance(colour: str) -> float:
            shares = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
            linear = [share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4 for share in shares]
            return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))

        for words in ("ink", "quiet", "accent"):
            for ground in ("page", "card"):
                low, high = sorted((luminance(colours[words]), luminance(colours[ground])))
                assert (high + 0.05) / (low + 0.05) >= 4.5, (words, ground)
        low, high = sorted((luminance(colours["ink"]), luminance(colours["bar"])))
        assert (high + 0.05) / (low + 0.05) >= 4.5

    def test_hostile_text_is_shown_and_not_obeyed(self):
        shown = page(HOSTILE, HOSTILE, [Tile(HOSTILE, 1.0, HOSTILE, HOSTILE)], [
            Section(HOSTILE, HOSTILE, table(HOSTILE, (HOSTILE,), [(HOSTILE, (plain_cell(HOSTILE),))])),
        ])  # fmt: skip
        assert "<script" not in shown
        assert shown.count("&lt;script&gt;") == 13
        Reader(shown)

    def test_a_name_that_is_no_utf_8_is_written_with_question_marks(self):
        shown = page("\udcff", "", [], []).encode("utf-8").decode("utf-8")
        assert "<title>?" in shown


def test_a_run_with_hostile_class_and_file_names_is_reported(small_conv_run, colour_folder, tmp_path):
    hostile = "<script>alert('$x^$ & \\\\frac')<"
    for side in ("train", "test"):
        (colour_folder / side / "red").rename(colour_folder / side / hostile)
        for index, name in enumerate(("<img src=x onerror=y>.png", "日本$_$.png")):
            (colour_folder / side / hostile / f"{index}.png").rename(colour_folder / side / hostile / name)
    wrong = Image.fromarray(np.full((12, 12, 3), (30, 40, 200), np.uint8))
    wrong.save(colour_folder / "test" / hostile / "<b>wrong.png")
    run = tmp_path / "run"
    options = {"shots": 4, "epochs": 6, "augment": "none", "method": "full"}
    finetune(FinetuneConfig("small_conv", str(colour_folder), run, checkpoint=small_conv_run, **options))
    made = explain_run(run, str(colour_folder), tmp_path / "out", QUICK)
    shown = text_of(made)
    assert {tag for tag, _ in Reader(shown).tags}.isdisjoint({"script", "b"})
    assert "onerror=y>" not in shown
    assert "&lt;script&gt;alert(" in shown


def test_names_in_pictures_are_never_read_as_mathematics():
    from matplotlib.figure import Figure

    figure = Figure()
    for name in ("$x_{$", r"\frac$a$", "a\nb\x00", "$", "日本"):
        figure.text(0.1, 0.1, label_text(name))
    from vision.report.figure import png_of

    assert png_of(figure).startswith(b"\x89PNG")
    assert label_text("a" * 30, 5) == "aaaa…"


class TestAnswers:
    """Mistakes are ranked, models before training are found."""

    def test_the_worst_mistakes_are_the_surest_wrong_answers(self, run):
        description = read_description(run)
        pixels = load_pixels(open_images("digits", description.classes).test, description.data)
        logits = torch.randn(len(pixels.labels), 3, generator=torch.Generator().manual_seed(0))
        answers = answers_of(pixels, description.classes, logits, description.task)
        probabilities = np.exp(logits.numpy()) / np.exp(logits.numpy()).sum(axis=1, keepdims=True)
        wrong = [row for row in range(len(logits)) if probabilities[row].argmax() != int(pixels.labels[row])]
        expected = sorted(wrong, key=lambda row: -probabilities[row].max())[:7]
        assert [mistake.row for mistake in answers.worst_mistakes(7)] == expected

    @pytest.mark.parametrize("method", ["flora", "full"])
    def test_the_model_before_has_the_body_of_the_checkpoint_and_the_trained_head(
        self, small_conv_run, tmp_path, method
    ):
        out = tmp_path / "run"
        options = {"classes": ("3", "8"), "shots": 4, "epochs": 2, "method": method}
        finetune(FinetuneConfig("small_conv", "digits", out, checkpoint=small_conv_run, **options))
        before, start = model_before(out, read_description(out)), load_run(small_conv_run).model
        body = {name: tensor for name, tensor in start.state_dict().items() if not name.startswith("fc.")}
        for name, tensor in body.items():
            assert torch.equal(before.state_dict()[name], tensor), name
        stored = load_model(out, read_description(out)).state_dict()
        trained = next(
            tensor for name, tensor in stored.items() if name.endswith(("fc.weight", "fc.copies.default.weight"))
        )
        assert torch.equal(before.state_dict()["fc.weight"], trained)

    def test_a_run_from_scratch_has_no_model_before(self, small_conv_run, tmp_path):
        assert model_before(small_conv_run, read_description(small_conv_run)) is None
        made = explain_run(small_conv_run, "digits", tmp_path, QUICK)
        assert "The model before training is not kept with this run" in text_of(made)


class TestConfidence:
    """Calibration against its definition."""

    def test_the_error_is_the_weighted_gap_of_fifteen_bins(self):
        generator = np.random.default_rng(0)
        confidence = np.r_[generator.random(500), 0.0, 1.0, 0.2]
        right = generator.random(503) < np.where(confidence < 0.5, 0.6, confidence**2)
        expected = 0.0
        for low in range(15):
            inside = (confidence > low / 15) & (confidence <= (low + 1) / 15) | ((low == 0) & (confidence == 0))
            if inside.any():
                expected += inside.mean() * abs(confidence[inside].mean() - right[inside].mean())
        found = reliability(torch.from_numpy(confidence), torch.from_numpy(right))
        assert found.error == pytest.approx(expected, abs=1e-12)
        assert int(found.counts.sum()) == 503

    def test_an_honest_model_has_no_error(self):
        confidence = torch.full((10,), 0.7)
        assert reliability(confidence, torch.arange(10) < 7).error == pytest.approx(0, abs=1e-7)

    def test_the_interval_is_where_the_score_test_turns(self):
        low, high = wilson_interval(36, 50)
        for bound in (low, high):
            assert abs(36 / 50 - bound) / np.sqrt(bound * (1 - bound) / 50) == pytest.approx(1.96, abs=1e-9)
        assert wilson_interval(0, 5)[0] == 0
        assert wilson_interval(5, 5)[1] == pytest.approx(1)


class TestFeatures:
    """Features before the head, and where they come to lie."""

    @pytest.mark.parametrize("name", ["small_conv_run", "run"])
    def test_the_head_of_its_inputs_gives_the_logits(self, name, request):
        folder = request.getfixturevalue(name)
        description, model = read_description(folder), load_model(folder, read_description(folder))
        pixels = load_pixels(open_images("digits", description.classes).test, description.data)
        features = head_inputs(model, "fc", pixels.values, description.data)
        head = next(module for key, module in model.named_modules() if key.endswith("fc"))
        expected = predict_logits(model, pixels.values, description.data)
        with torch.no_grad():
            torch.testing.assert_close(head(features), expected, atol=1e-5, rtol=1e-4)

    def test_principal_components_are_those_of_the_singular_vectors(self):
        features = torch.randn(20, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        centred = features - features.mean(dim=0)
        expected = (centred @ torch.linalg.svd(centred).Vh[:2].T).numpy()
        found = on_a_plane(features, "pca", 0)
        np.testing.assert_allclose(np.abs(found), np.abs(expected), atol=1e-9)

    def test_neighbours_are_those_of_a_search_one_by_one_and_never_the_image_itself(self):
        generator = np.random.default_rng(0)
        points, labels = generator.random((25, 3)), generator.integers(0, 3, 25)
        agreeing = 0
        for row in range(25):
            distances = [np.inf if other == row else np.linalg.norm(points[row] - points[other]) for other in range(25)]
            agreeing += labels[int(np.argmin(distances))] == labels[row]
        found = neighbour_agreement(torch.from_numpy(points), torch.from_numpy(labels))
        assert found == pytest.approx(agreeing / 25)
        assert found < 1

    def test_planted_groups_stay_together_on_the_plane(self):
        generator = torch.Generator().manual_seed(0)
        labels = torch.arange(3).repeat_interleave(10)
        features = 20.0 * torch.eye(3)[labels] + torch.randn(30, 3, generator=generator)
        points = torch.from_numpy(on_a_plane(features, "tsne", 0))
        assert neighbour_agreement(points, labels) == neighbour_agreement(features, labels) == 1.0
        assert np.array_equal(points.numpy(), on_a_plane(features, "tsne", 0))


def test_curves_are_the_numbers_written_with_a_step():
    rows = [{"step": 1, "loss": 2.0, "seconds": 1, "note": "x"}, {"step": 2, "val_accuracy": 0.5}, {"best": 3}]
    assert curve_names(rows) == ["loss", "val_accuracy"]


def test_the_command_writes_the_report_into_the_run_and_says_where_other_images_were_tested(run, tmp_path, capsys):
    shutil.copytree(run, tmp_path / "run")
    results = json.loads((run / "results.json").read_text())
    (tmp_path / "run" / "results.json").write_text(json.dumps({**results, "accuracy": 0.125}))
    options = ("--maps", 2, "--points", 12, "--explanation", "occlusion")
    assert call("explain", tmp_path / "run", "--data", "digits", *options) == 0
    assert str(tmp_path / "run" / "report" / "report.html") in capsys.readouterr().out
    shown = (tmp_path / "run" / "report" / "report.html").read_text()
    assert "Occlusion of the same images" in shown
    assert f"accuracy 12.5 %, here {100 * results['accuracy']:.1f} %: other images" in shown


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--explanation", "shap"), "name must be one of auto, attention_rollout, grad_cam, occlusion, got 'shap'"),
        (("--maps", "0"), "--maps: must be at least 1, got 0"),
    ],
)
def test_wrong_options_are_one_line(run, tmp_path, capsys, words, message):
    assert call("explain", run, "--data", "digits", "--out", tmp_path / "out", *words) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "damage",
    [
        {"parameters": 3},
        {"parameters": {"trainable": 5, "total": 0}},
        {"parameters": {"trainable": "many", "total": 7}},
        {"steps": None},
        {"train_seconds": [1]},
        {"accuracy": "high"},
    ],
)
def test_a_damaged_results_file_is_one_line(run, tmp_path, capsys, damage):
    shutil.copytree(run, tmp_path / "run", ignore=shutil.ignore_patterns("report"))
    file = tmp_path / "run" / "results.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **damage}))
    assert call("explain", tmp_path / "run", "--data", "digits", "--maps", 2, "--points", 12) == 2
    assert "results.json" in capsys.readouterr().err
    assert not (tmp_path / "run" / "report").exists()


@pytest.mark.parametrize("damage", [{"command": 3}, {"versions": ["torch"]}, {"command": None, "versions": None}])
def test_a_run_that_does_not_say_where_it_came_from_is_reported_on(run, tmp_path, damage):
    shutil.copytree(run, tmp_path / "run", ignore=shutil.ignore_patterns("report"))
    file = tmp_path / "run" / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **damage}))
    assert call("explain", tmp_path / "run", "--data", "digits", "--maps", 2, "--points", 12) == 0


def test_too_few_points_are_refused():
    with pytest.raises(ConfigError, match="--points: must be at least 4"):
        ReportSettings(points=3)
