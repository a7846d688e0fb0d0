"""The demo's report: tables read the same everywhere, pictures show what they are given, the page needs no network."""

import base64
import re
from pathlib import Path

import numpy as np
import pytest

from deploy.demo.__main__ import DemoConfig, demo
from deploy.demo.figures import confusion_matrices, masked_window, search_trace
from deploy.demo.report import Chapter, page
from deploy.demo.tables import Table
from shared_peft.errors import RunError

TABLE = Table("Scores <all>", ("method", "F1"), [("forest & co", "0.9"), ("ours", "0.95")], "A note.", best=(1,))


def test_a_table_is_aligned_in_a_terminal() -> None:
    assert (
        TABLE.as_text() == "Scores <all>\nmethod         F1\n-----------  ----\nforest & co   0.9\nours         0.95\n"
    )


def test_a_table_is_escaped_and_marks_the_best_row_on_a_page() -> None:
    shown = TABLE.as_html()
    assert "Scores &lt;all&gt;" in shown
    assert "forest &amp; co" in shown
    assert re.findall(r"<tr class=best><th scope='row'>(.*?)</th>", shown) == ["ours"]


def drawn(picture: object) -> str:
    source = re.search(r"base64,([^']+)'", picture.as_html())
    assert source is not None
    return base64.b64decode(source.group(1)).decode()


def test_confusion_matrices_show_shares_of_each_true_class() -> None:
    picture = confusion_matrices(
        "Confusion", {"a": [[3, 1], [0, 0]], "b": [[1, 1], [1, 4]], "c": [[1, 0], [0, 1]]}, ["x", "y"]
    )
    comments = re.findall(r"<!-- (.*?) -->", drawn(picture))
    assert comments.count("75") == 1
    assert comments.count("25") == 1
    assert {"a", "b", "c", "20", "80", "true class"} <= set(comments)


def test_the_trace_marks_the_chosen_trial() -> None:
    weights = [{"period": 1.0, "point": 0.0}, {"period": 0.5, "point": 0.5}]
    comments = re.findall(r"<!-- (.*?) -->", drawn(search_trace([0.5, 0.6], weights, 1)))
    assert {"period", "point", "chosen", "macro-F1"} <= set(comments)


def test_a_masked_window_has_a_row_a_level() -> None:
    truth = np.zeros((10, 2), np.float32)
    masks = {"point": truth > 1, "sensor": truth > -1}
    picture = masked_window(np.arange(10) / 20, truth, np.stack([truth, truth]), masks, ["acc_x [g]"])
    assert {"point", "sensor", "acc_x [g]", "time [s]"} <= set(re.findall(r"<!-- (.*?) -->", drawn(picture)))


def test_the_page_is_one_file_without_requests() -> None:
    picture = confusion_matrices("Confusion", {"a": [[1, 0], [0, 1]]}, ["x", "y"])
    text = page("Title", "Lead.", [Chapter("One", "Words.", (TABLE, picture))], ["Command: x"])
    assert text.startswith("<!doctype html>")
    assert not re.findall(r"(?:src|href)='(?!data:|#)", text)
    assert text.count("<table>") == 1
    assert "<a href='#c0'>One</a>" in text


def test_the_demo_does_not_clear_a_folder_it_did_not_make(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(RunError, match=r"must be a new folder or an earlier demo's, got thesis\.tex"):
        demo(DemoConfig(out=tmp_path))
    assert (tmp_path / "thesis.tex").read_text() == "years of work"
