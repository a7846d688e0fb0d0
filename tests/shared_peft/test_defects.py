"""What other adapter libraries get wrong (see tests/benchmarks/defects.py) is right here."""

import math
import re

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from shared_peft import METHODS
from shared_peft.errors import SagaPeftError
from tests.benchmarks.defect_cases import DEFECTS, Defect, Measured, filled
from tests.benchmarks.defect_libraries import ALPHA, RANK, NotAdaptedError, NotOfferedError, Ours
from tests.benchmarks.defect_models import CONV, MERGED, TIED
from tests.benchmarks.defects import cell
from tests.shared_peft.cases import close

UNTIED = [name for name in MERGED if name != TIED]
PARAMETERS = {part: f"{part}_proj_weight" for part in "qkv"} | {"out_proj": "out_proj.weight"}
ROWS = {"q": slice(8), "k": slice(8, 16), "v": slice(16, 24)}


class Forgetful(Ours):
    """A library that forgets the adapter when it merges, and keeps it when it unmerges."""

    def merge(self, adapted: nn.Module) -> None:
        adapted.unload()  # type: ignore[operator]

    def merge_and_unmerge(self, adapted: nn.Module) -> None:
        adapted.merge_adapter()  # type: ignore[operator]


def weights_by_hand(model: nn.Module, adapted: nn.Module) -> dict[str, Tensor]:
    """Weights of a fresh model with alpha / r B A added, from nothing but the adapter's tensors and their names."""
    weights = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    tensors = dict(adapted.named_parameters())
    for name, down in tensors.items():
        found = re.fullmatch(r"base_model\.(.+)\.adapters\.default\.(.+)\.lora_A", name)
        if not found:
            continue
        layer, slot = found.groups()
        change = ALPHA / RANK * torch.einsum("or,ri...->oi...", tensors[f"{name[:-1]}B"], down).detach()
        if isinstance(model.get_submodule(layer), nn.ConvTranspose2d):
            change = change.transpose(0, 1)
        if f"{layer}.in_proj_weight" in weights and slot in ROWS:
            weights[f"{layer}.in_proj_weight"][ROWS[slot]] += change
        else:
            weights[f"{layer}.{PARAMETERS.get(slot, slot)}"] += change
    return weights


@pytest.mark.parametrize("name", DEFECTS.names())
def test_ours_has_none_of_the_defects(name: str) -> None:
    found = cell(DEFECTS.get(name), Ours())
    assert found.right, found.text


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "a file of another model's tensors",
            r"must be those of this adapter on this model, got 2 missing: .*unexpected",
        ),
        ("a file without one of its tensors", r"must be those of this adapter on this model, got 1 missing: "),
        (TIED, r"^outer: its weight must belong to it alone, got shared by inner\.weight, outer\.weight"),
    ],
)
def test_what_is_refused_says_why(name: str, message: str) -> None:
    (defect,) = (defect for title, defect in DEFECTS.items() if title.startswith(name))
    with pytest.raises(SagaPeftError, match=message):
        defect.measure(Ours())


@pytest.mark.parametrize("name", UNTIED)
def test_adapted_layers_answer_like_layers_with_the_product_added_by_hand(name: str) -> None:
    setting = MERGED[name]
    adapted = filled(Ours(), setting.model(), setting.targets)
    weights = weights_by_hand(setting.model(), adapted)
    expected = functional_call(setting.model(), weights, (setting.x(),))
    assert not close(expected, setting.model()(setting.x()), 1e-2)
    assert close(adapted(setting.x()), expected)
    with torch.no_grad():
        assert close(adapted(setting.x()), expected)


@pytest.mark.parametrize("name", [name for name in DEFECTS.names() if "merged - adapted" in name and TIED not in name])
def test_a_library_that_forgets_the_change_when_merging_is_found_out(name: str) -> None:
    measured = DEFECTS.get(name).measure(Forgetful())
    assert measured.value == pytest.approx(1, abs=1e-5)
    found = cell(DEFECTS.get(name), Forgetful())
    assert not found.right
    assert found.text.startswith("**1")


@pytest.mark.parametrize("name", [name for name in DEFECTS.names() if name.startswith("unmerged")])
def test_a_library_that_does_not_unmerge_is_found_out(name: str) -> None:
    assert DEFECTS.get(name).measure(Forgetful()).value > 0.9


def test_every_method_is_among_the_fresh_adapters() -> None:
    assert {name for name, _ in Ours().starts(CONV.model)} == set(METHODS.names())


def raising(error: Exception) -> Defect:
    def measure(_: object) -> Measured:
        raise error

    return Defect(measure)


@pytest.mark.parametrize(
    ("defect", "text", "right"),
    [
        (Defect(lambda _: Measured(1e-6)), "1e-06", True),
        (Defect(lambda _: Measured(1e-6), bound=0), "**1e-06**", False),
        (Defect(lambda _: Measured(0.5, "half")), "**half**", False),
        (Defect(lambda _: Measured(math.nan)), "**nan**", False),
        (Defect(lambda _: Measured(0), refusal=True), "**0**", False),
        (raising(ValueError("a | b\nc")), "error: a / b c", False),
        (raising(ValueError("x" * 200)), f"error: {'x' * 70} ...", False),
        (Defect(raising(ValueError("no")).measure, refusal=True), "refused: ValueError", True),
        (raising(NotAdaptedError()), "not adapted", False),
        (raising(NotOfferedError()), "-", False),
    ],
)
def test_a_cell_is_right_within_the_bound_or_where_an_error_is_right(defect: Defect, text: str, right: bool) -> None:  # noqa: FBT001
    found = cell(defect, Ours())
    assert (found.text, found.right) == (text, right)
