"""The README keeps its promises: its code and its commands run, its tables are the registries'."""

from pathlib import Path

import pytest

from tests.pages import blocks_of, walk
from tests.registry_tables import README, with_tables

TEXT = README.read_text(encoding="utf-8")


def test_the_tables_are_those_of_the_registries() -> None:
    assert with_tables(TEXT) == TEXT, "run: python -m tests.registry_tables"


def test_every_python_example_is_short() -> None:
    examples = [block.code for block in blocks_of(TEXT) if block.language == "python"]
    assert len(examples) >= 3
    assert all(len([line for line in code.splitlines() if line]) <= 10 for code in examples)


def test_code_and_commands_run_in_the_order_shown_and_the_bundle_answers(tmp_path: Path) -> None:
    printed = walk(TEXT, tmp_path, shared=None)
    assert any(text.startswith("trainable params: ") for text in printed)
    assert "top1_agreement=1.0" in printed[-1], "the bundle's runner comes last"
    runs = tmp_path / "runs"
    for made in (
        "readme/flora/adapter_model.safetensors",
        "readme/stock/adapter_model.safetensors",
        "inspection/inspection.png",
        "store/store.json",
        "saga-store/model.json",
        "benchmark/table.md",
    ):
        assert (runs / made).is_file(), made
    header = (tmp_path / "all.csv").read_text().splitlines()[0]
    assert header == "session,start_s,end_s,note,activity,activity_confidence,placement,placement_confidence"
    assert (tmp_path / "predictions.csv").read_text().startswith("session,start_s,end_s,label,confidence")


@pytest.mark.filterwarnings("ignore:ranks lowered to what the weight allows")  # says so to the user, too
def test_the_commands_on_a_folder_of_images_run_in_the_order_shown(shared_root: Path, tmp_path: Path) -> None:
    printed = walk(TEXT, tmp_path, shared_root, wanted=lambda block: block.needs_real_data)
    assert len(printed) == 1
    assert (tmp_path / "runs" / "flora-bundle" / "manifest.json").is_file()
