"""Every page of the documentation keeps its promises: its code and its commands run in the order shown."""

import re
from pathlib import Path

import pytest

from tests.deploy.web.conftest import web_runtime  # noqa: F401  (a fixture)
from tests.pages import DOCS, ROOT, all_pages, blocks_of, walk

SHOWN = {"text", "csv", "json", "yaml"}  # languages that are read, not executed
LONG = {"RESULTS.md", "ROADMAP.md"}  # results of long benchmarks, whose commands take hours
PAGES = [page for page in all_pages() if page.name != "README.md" and page.name not in LONG]
ADDITIONS = DOCS / "add"  # run where their files are: tests/test_additions.py
IN_SITE = [
    page
    for page in PAGES
    if page.parent != ADDITIONS and any(block.runs for block in blocks_of(page.read_text(encoding="utf-8")))
]


@pytest.mark.filterwarnings("ignore:ranks lowered to what the weight allows")  # says so to the user, too
@pytest.mark.parametrize("page", IN_SITE, ids=lambda page: str(page.relative_to(DOCS)))
def test_the_page_runs_in_the_order_shown(page: Path, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    text = page.read_text(encoding="utf-8")
    real = any(block.needs_real_data for block in blocks_of(text))
    shared = request.getfixturevalue("shared_root") if real else None
    runtime = request.getfixturevalue("web_runtime") if "deploy web" in text else None
    assert walk(text, tmp_path, shared, runtime)


@pytest.mark.parametrize(
    ("block", "told"),
    [
        ("```sh\npython -m vision evaluate nowhere\n```", "vision evaluate nowhere: RunError: nowhere"),
        ("```sh\npython -m vision finetune --no-such-option\n```", "no-such-option|2"),
        ("```sh\nmake a_target_that_is_not_there\n```", "a_target_that_is_not_there"),
        ("```sh\npip install saga-peft[no_such_extra]\n```", "no_such_extra"),
        ("```sh\ncurl example.org\n```", "no way to execute: curl"),
        ("=== \"A tab\"\n\n    ```python\n    assert 1 + 1 == 3, 'sum'\n    ```", "sum"),
    ],
)
def test_a_block_that_fails_is_told(tmp_path: Path, block: str, told: str) -> None:
    with pytest.raises((AssertionError, SystemExit), match=told):
        walk(f"# A page\n\n{block}\n", tmp_path, shared=None)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(DOCS)))
def test_every_block_is_executed_or_says_that_it_is_shown(page: Path) -> None:
    for block in blocks_of(page.read_text(encoding="utf-8")):
        assert block.runs or block.title or block.language in SHOWN or "--8<--" in block.code, block


def test_examples_are_short() -> None:
    scripts = sorted((DOCS / "examples").glob("*.py"))
    assert len(scripts) >= 3
    assert all(len(script.read_text(encoding="utf-8").splitlines()) < 60 for script in scripts)


def test_every_example_is_on_the_page_of_examples_and_executed_there() -> None:
    text = (DOCS / "start" / "examples.md").read_text(encoding="utf-8")
    for script in (DOCS / "examples").glob("*.py"):
        name = str(script.relative_to(ROOT))
        assert f"python {name}" in text
        assert f'--8<-- "{name}"' in text


def test_pictures_are_small() -> None:
    pictures = [*DOCS.rglob("*.png")]
    assert pictures
    assert all(picture.stat().st_size < 80_000 for picture in pictures)


def test_pages_name_no_place_of_a_machine() -> None:
    for page in all_pages():
        assert not re.search(r"(?<![\w.])/(home|root|work|tmp|Users)/", page.read_text(encoding="utf-8")), page
