"""One batch, several adapters: every sample's answer is the one its adapter alone gives."""

import pytest
import torch
from torch import Tensor, nn

from shared_peft import METHODS, FloraConfig, LoraConfig, PeftModel, get_peft_model
from shared_peft import per_sample as module_under_test
from shared_peft.errors import AdapterError
from tests.shared_peft.cases import CASES, Case, close, config_for, fill_randomly
from tests.shared_peft.small_models import resnet, swin, vit

NAMES = ["b", "a", "__base__", "b", "a"]
IMAGES = torch.randn(5, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def two(base: nn.Module, first: object, second: object) -> PeftModel:
    model = get_peft_model(base, first, "a")
    fill_randomly(model, 1)
    model.add_adapter("b", second)
    model.set_adapter("b")
    fill_randomly(model, 2)
    model.set_adapter(["a", "b"], weights=[0.5, 0.5])
    return model.eval()


def alone(model: PeftModel, x: Tensor, names: list[str]) -> Tensor:
    """Each sample on its own, as a batch of one."""
    rows = []
    for name, row in zip(names, x.split(1), strict=True):
        if name == "__base__":
            with model.disable_adapter():
                rows.append(model(row))
        else:
            model.set_adapter(name)
            rows.append(model(row))
    model.set_adapter(["a", "b"], weights=[0.5, 0.5])
    return torch.cat(rows)


def passes(model: PeftModel) -> list[int]:
    """Sizes of the batches the base model is run on, as they come."""
    sizes: list[int] = []
    model.base_model.register_forward_pre_hook(lambda _, args: sizes.append(len(args[0])))
    return sizes


@pytest.mark.parametrize("method", METHODS.names())
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_every_method_answers_like_each_sample_alone_on_every_layer(method: str, case: Case) -> None:
    if not METHODS.get(method).mergeable and case.name not in ("linear", "conv2d", "conv1d"):
        method = "lora"
    model = two(case.layer(), config_for(method), config_for("flora"))
    x = case.x(5)
    with torch.no_grad():
        expected = alone(model, x, NAMES)
        assert close(model(x, adapter_names=NAMES), expected)
        assert close(model(x, adapter_names=["a"] * 5), alone(model, x, ["a"] * 5))
        assert not close(expected[2:3], model(x[2:3]), 1e-3)


@pytest.mark.parametrize(("build", "once"), [(vit, True), (resnet, True), (swin, False)])
@pytest.mark.parametrize("grad", [False, True])
def test_models_run_once_where_the_batch_comes_first_everywhere_and_once_an_adapter_elsewhere(
    build: object, once: bool, grad: bool
) -> None:
    model = two(build(), LoraConfig(r=2), FloraConfig(r=2, target_modules="all-linear"))
    with torch.set_grad_enabled(grad):
        expected = alone(model, IMAGES, NAMES)
        model(IMAGES, adapter_names=NAMES)
        sizes = passes(model)
        assert close(model(IMAGES, adapter_names=NAMES), expected, 1e-4 * float(expected.detach().abs().max()))
    assert sizes == ([5] if once else [2, 2, 1])


class Crossed(nn.Module):
    """A layer over positions, and one over the transposed batch: rows there are no samples."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.position = nn.Embedding(5, 6)
        self.mix = nn.Linear(6, 6)
        self.head = nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.position(torch.arange(x.shape[1]))
        return self.head(self.mix(x.transpose(0, 1)).transpose(0, 1).mean(1))


def test_a_dimension_as_long_as_the_batch_by_chance_is_told_apart() -> None:
    x = torch.randn(5, 5, 6)
    for targets in (["mix"], ["position"], "all"):
        model = two(Crossed(), LoraConfig(r=2, target_modules=targets), LoraConfig(r=1, target_modules=targets))
        assert close(model(x, adapter_names=NAMES), alone(model, x, NAMES)), targets
    model = two(Crossed(), LoraConfig(r=2, target_modules=["head"]), LoraConfig(r=1, target_modules=["head"]))
    sizes = passes(model)
    assert close(model(x, adapter_names=NAMES), alone(model, x, NAMES))
    assert sizes[2] == 5  # after two runs on shapes


def test_a_weight_that_is_read_past_its_layer_is_right_too() -> None:
    torch.manual_seed(0)
    encoder = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval()
    config = LoraConfig(r=2, target_modules=["linear1", "linear2"])
    model = two(nn.Sequential(encoder), config, config)
    x = torch.randn(5, 3, 8)
    for grad in (True, False):
        with torch.set_grad_enabled(grad):
            assert close(model(x, adapter_names=NAMES), alone(model, x, NAMES))


class Asking(nn.Module):
    """Reads a size of its layer beside calling it."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.mix = nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        return self.mix(x) / self.mix.in_features


def test_a_size_that_is_read_from_a_layer_is_no_weight_read_past_it() -> None:
    model = two(nn.Sequential(Asking()), LoraConfig(r=2), LoraConfig(r=1))
    x = torch.randn(5, 6)
    expected = alone(model, x, NAMES)
    model(x, adapter_names=NAMES)
    sizes = passes(model)
    assert close(model(x, adapter_names=NAMES), expected)
    assert sizes == [5]


@pytest.mark.parametrize("build", [vit, swin])
def test_gradients_flow_to_each_adapter_from_its_own_samples(build: object) -> None:
    model = two(build(), LoraConfig(r=2), FloraConfig(r=2))
    model.set_adapter(["a", "b"])
    model.train()
    model(IMAGES, adapter_names=NAMES)[[0, 3]].square().sum().backward()
    got = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    assert all(not grad.any() for name, grad in got.items() if ".adapters.a." in name)
    model.zero_grad()
    model.set_adapter("b")
    model(IMAGES[[0, 3]]).square().sum().backward()
    expected = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    assert expected
    scale = max(float(grad.abs().max()) for grad in expected.values())
    assert all(torch.allclose(got[name], grad, rtol=1e-3, atol=1e-5 * scale) for name, grad in expected.items())


def test_heads_are_taken_per_sample_and_must_agree_in_shape() -> None:
    config = LoraConfig(r=2, target_modules=["qkv"], modules_to_save=["head"])
    model = two(vit(), config, LoraConfig(r=1, target_modules=["qkv"]))
    assert close(model(IMAGES, adapter_names=NAMES), alone(model, IMAGES, NAMES))
    model = two(vit(), config, config)
    sizes = passes(model)
    assert close(model(IMAGES, adapter_names=NAMES), alone(model, IMAGES, NAMES))
    assert sizes[2] == 5
    model.base_model.head.copies["b"] = nn.Linear(24, 7)
    with pytest.raises(AdapterError, match=r"outputs must be of one shape, one row a sample, got \(2, 7\), \(2, 5\)"):
        model(IMAGES, adapter_names=NAMES)
    assert close(model(IMAGES[:2], adapter_names=["b", "b"]), alone(model, IMAGES[:2], ["b", "b"]))


def test_models_with_several_arguments_and_outputs_are_put_together_again() -> None:
    class Pair(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

        def forward(self, x: Tensor, *, keys: Tensor, scale: float) -> dict[str, object]:
            output, weights = self.attention(x, keys, keys)
            return {"output": output * scale, "weights": weights, "scale": scale}

    model = two(Pair().eval(), LoraConfig(r=2), FloraConfig(r=2))
    x, keys = torch.randn(5, 3, 8), torch.randn(5, 4, 8)
    together = model(x, keys=keys, scale=2.0, adapter_names=NAMES)
    for row, name in enumerate(NAMES):
        model.set_adapter("a" if name == "__base__" else name)
        with model.disable_adapter() if name == "__base__" else torch.enable_grad():
            single = model(x[row : row + 1], keys=keys[row : row + 1], scale=2.0)
        assert close(together["output"][row], single["output"][0])
        assert close(together["weights"][row], single["weights"][0])
    assert together["scale"] == 2.0


def test_wrong_names_lengths_and_merged_models_are_refused_before_anything_runs() -> None:
    model = two(vit(), LoraConfig(r=2), FloraConfig(r=2))
    sizes = passes(model)
    with pytest.raises(AdapterError, match="adapter_names: must be of a, b, __base__, got 'c'"):
        model(IMAGES, adapter_names=["a", "b", "c", "a", "a"])
    with pytest.raises(AdapterError, match="must be one for each sample of the first input, got 4 for 5 samples"):
        model(IMAGES, adapter_names=["a"] * 4)
    model.merge_adapter()
    with pytest.raises(AdapterError, match="adapter_names: needs an unmerged model, got merged weights"):
        model(IMAGES, adapter_names=NAMES)
    assert sizes == []


def test_nothing_stays_switched_after_the_call_nor_after_an_error() -> None:
    model = two(swin(), LoraConfig(r=2), FloraConfig(r=2))
    before = model(IMAGES)
    model(IMAGES, adapter_names=NAMES)
    assert torch.equal(model(IMAGES), before)
    for build in (vit, swin):
        model = two(build(), LoraConfig(r=2), FloraConfig(r=2))
        before = model(IMAGES)
        hook = model.base_model.head.register_forward_pre_hook(lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            model(IMAGES, adapter_names=NAMES)
        hook.remove()
        assert torch.equal(model(IMAGES), before)
        assert model.active_adapters == ["a", "b"]


def test_the_shapes_are_tried_once_and_again_after_a_new_adapter(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []
    original = module_under_test._runs_on_shapes
    monkeypatch.setattr(module_under_test, "_runs_on_shapes", lambda *args: tried.append(1) or original(*args))
    model = two(vit(), LoraConfig(r=2, target_modules=["qkv"]), LoraConfig(r=2, target_modules=["qkv"]))
    for _ in range(3):
        model(IMAGES, adapter_names=NAMES)
    assert len(tried) == 2
    model.add_adapter("c", LoraConfig(r=2, target_modules=["fc1"]))
    model(IMAGES, adapter_names=NAMES)
    assert len(tried) == 4


def test_dropout_acts_on_each_adapters_own_rows() -> None:
    model = two(vit(), LoraConfig(r=2, lora_dropout=0.5), LoraConfig(r=2)).train()
    first, second = (model(IMAGES, adapter_names=NAMES) for _ in range(2))
    assert torch.equal(first[[0, 2, 3]], second[[0, 2, 3]])
    assert not close(first[1], second[1], 1e-3)
