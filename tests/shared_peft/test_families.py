"""A few timm families as different as they come; the benchmark of the same name runs all of them."""

import pytest
import torch

from tests.shared_peft.families import METHOD_FIELDS, Built, FamilyError, build_smallest, check_family, families

FAMILIES = (
    "convnext",
    "efficientnet",
    "fastvit",
    "nfnet",
    "resnet",
    "sequencer",
    "swin_transformer",
    "vision_transformer",
)


@pytest.fixture(scope="module", params=FAMILIES)
def built(request: pytest.FixtureRequest) -> Built:
    return build_smallest(request.param)


@pytest.mark.parametrize("method", METHOD_FIELDS)
def test_a_family_is_adapted_everywhere_trained_a_step_and_merged(built: Built, method: str) -> None:
    merged, numbers = check_family(built, method)
    assert numbers["layers"] >= 8
    assert numbers["moved"] == 1
    assert numbers["changed"] > 0.01
    assert numbers["difference"] < 1e-5
    assert [type(module) for module in merged.modules()] == [type(module) for module in built.model.modules()]


def test_timm_names_more_than_ninety_families_and_the_chosen_ones_are_among_them() -> None:
    found = families()
    assert len(found) > 90
    assert set(FAMILIES) <= set(found)
    assert sum(len(names) for names in found.values()) == len({name for names in found.values() for name in names})


def test_a_family_that_cannot_be_built_says_why() -> None:
    with pytest.raises(FamilyError, match=r"vgg11: 129 million parameters"):
        build_smallest("vgg", largest=10_000_000)


def test_the_check_sees_a_merge_that_goes_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    from shared_peft.layer import AdapterLayer

    built = build_smallest("resnet")
    right = AdapterLayer.merge

    def wrong(layer: AdapterLayer, *args: object, **options: object) -> None:
        right(layer, *args, **options)  # type: ignore[arg-type]
        layer.base_layer.weight.data.mul_(1.01)

    monkeypatch.setattr(AdapterLayer, "merge", wrong)
    with pytest.raises(FamilyError, match="merged must equal adapted"):
        check_family(built, "lora")
    monkeypatch.undo()
    monkeypatch.setattr(torch.optim.AdamW, "step", lambda *_: None)
    with pytest.raises(FamilyError, match="the step must move the adapter"):
        check_family(built, "lora")
