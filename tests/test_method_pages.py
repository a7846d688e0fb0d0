"""The pages of docs/methods are those of the registry, and every method says what it is for."""

import sys

import pytest
from torch import nn

from shared_peft import METHODS, get_peft_model, make_config
from shared_peft.errors import ConfigError
from tests.method_pages import LINEAR, MEASURED, METHOD_DOCS, RANK, described, method_pages


def test_the_pages_are_those_of_the_registry() -> None:
    written = {path.name: path.read_text(encoding="utf-8") for path in METHOD_DOCS.glob("*.md")}
    written.pop(MEASURED.name)
    assert written == method_pages(), "run: python -m tests.method_pages"


@pytest.mark.parametrize("name", METHODS.names())
def test_every_method_says_its_equation_and_when_to_use_it(name: str) -> None:
    documentation = sys.modules[METHODS.get(name).__module__].__doc__
    assert "=" in described(documentation, "Equation")
    assert described(documentation, "Use").endswith(".")


def test_a_method_without_an_equation_is_named_with_what_is_missing() -> None:
    with pytest.raises(ConfigError, match='A method.: must have a paragraph "Equation:"'):
        described("A method.\n\nUse:\n    Never.\n", "Equation")


def test_the_numbers_of_a_page_are_those_of_an_attached_adapter() -> None:
    model = get_peft_model(nn.Sequential(nn.Linear(384, 384)), make_config("flora", r=RANK))
    counted = RANK * 384 + 384 * RANK + RANK * RANK
    assert model.get_nb_trainable_parameters()[0] == counted
    assert f"| {LINEAR} | {384 * 384 + 384:,} | {counted:,} |" in method_pages()["flora.md"]


def test_every_method_is_measured() -> None:
    rows = MEASURED.read_text(encoding="utf-8")
    assert [name for name in METHODS.names() if f"| `{name}` |" not in rows] == []
