"""Stock Hugging Face peft reads what we write with the same answers, and we read what it writes."""

import copy
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from shared_peft import FloraConfig, LoraConfig, LoraTsdConfig, PeftModel, get_peft_model
from shared_peft.errors import AdapterError, CheckpointError, ConfigError, SagaPeftError
from shared_peft.inject import adapter_layers
from tests.shared_peft.cases import CASES, Case, close, fill_randomly
from tests.shared_peft.small_models import IMAGES, resnet, timm, vit  # before peft, which imports torchvision

import peft  # isort: skip


class Toy(nn.Module):
    """Every layer type that stock peft runs, in one model, and a head."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table = nn.Embedding(11, 12, padding_idx=0)
        self.waves = nn.Conv1d(12, 8, 3, padding="same")
        self.image = nn.Conv2d(8, 6, (3, 1), padding=(1, 0), stride=(1, 2))
        self.block = nn.ModuleDict({"image": nn.Conv2d(6, 6, 1), "proj": nn.Linear(6, 7)})
        self.volume = nn.Conv3d(6, 6, (1, 3, 2))
        self.head = nn.Linear(7, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.waves(self.table(x).mT)
        x = self.block["image"](self.image(x.unflatten(-1, (4, 4))))
        x = self.volume(x.unsqueeze(2))
        return self.head(torch.relu(self.block["proj"](x.mean((2, 3, 4)))))


def toy() -> nn.Module:
    return Toy().eval()


TOKENS = torch.randint(11, (3, 16), generator=torch.Generator().manual_seed(0))
MODELS: dict[str, tuple[Callable[[], nn.Module], Tensor, str]] = {
    "toy": (toy, TOKENS, "head"),
    "vit": (vit, IMAGES, "head"),
    "resnet": (resnet, IMAGES, "fc"),
}
CONFIGS = {
    "lora": LoraConfig(r=3, lora_alpha=5.0, rank_pattern={"image": 2}),
    "rslora": LoraConfig(r=2, lora_alpha=5.0, use_rslora=True),
    "tsd": LoraTsdConfig(r=2, lora_alpha=3.0, n_directions=4, warmup_steps=1),
    "flora": FloraConfig(r=3, kernel_r=2, scale=0.7),
    "flora wide": FloraConfig(r=(4, 4), kernel_r=None),
}
every_model = pytest.mark.parametrize("name", MODELS)


def trained(base: nn.Module, config: object) -> PeftModel:
    model = get_peft_model(base, config)
    fill_randomly(model)
    model.update_and_allocate(1)
    fill_randomly(model, 4)
    return model.eval()


def with_fields(config: object, **fields: object) -> object:
    return type(config)(**{**config.__dict__, **fields})


@every_model
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())
@pytest.mark.parametrize("head", [False, True], ids=["adapted head", "trained head"])
def test_stock_peft_answers_like_the_adapter_we_wrote(name: str, config: object, head: bool, tmp_path: Path) -> None:
    build, x, last = MODELS[name]
    config = with_fields(config, modules_to_save=[last]) if head else config
    model = trained(build(), config)
    model.save_pretrained(tmp_path, stock=True)
    with torch.no_grad():
        theirs = peft.PeftModel.from_pretrained(build(), tmp_path).eval()
        expected = model(x)
        assert not close(expected, build()(x), 1e-2)
        assert close(theirs(x), expected, 1e-5 * max(1.0, float(expected.abs().max())))
        assert close(PeftModel.from_pretrained(build(), tmp_path)(x), expected, 1e-4)


@every_model
@pytest.mark.parametrize(
    "options",
    [
        {"r": 3, "lora_alpha": 5},
        {"r": 4, "use_rslora": True, "rank_pattern": {"proj|image|conv1": 2}, "alpha_pattern": {"proj|conv1": 9}},
        {"r": 40, "lora_alpha": 7, "alpha_pattern": {"image|proj|conv1": 5}},
        {"r": 2, "init_lora_weights": "gaussian", "lora_dropout": 0.1},
    ],
    ids=["plain", "patterns and rslora", "rank above the weight's", "gaussian"],
)
def test_we_answer_like_the_adapter_stock_peft_wrote(name: str, options: dict[str, object], tmp_path: Path) -> None:
    build, x, head = MODELS[name]
    kinds = (nn.Linear, nn.Embedding, nn.Conv1d, nn.Conv2d, nn.Conv3d)
    targets = [n for n, m in build().named_modules() if isinstance(m, kinds) and n != head]
    config = peft.LoraConfig(target_modules=targets, modules_to_save=[head], **options)
    theirs = peft.get_peft_model(build(), config).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in theirs.parameters():
            if parameter.requires_grad:
                parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
        theirs.save_pretrained(tmp_path)
        ours = PeftModel.from_pretrained(build(), tmp_path)
        expected = theirs(x)
        assert not close(expected, build()(x), 1e-2)
        assert close(ours(x), expected)
        beside = trained(build(), LoraConfig(r=1, exclude_modules=[head]))
        beside.load_adapter(tmp_path, "stock")
        beside.set_adapter("stock")
        assert close(beside(x), expected)
        assert close(ours.merge_and_unload()(x), expected)


@pytest.mark.parametrize("name", ["vit", "resnet"])
def test_a_stock_dora_adapter_answers_like_in_peft(name: str, tmp_path: Path) -> None:
    build, x, head = MODELS[name]
    targets = [n for n, m in build().named_modules() if isinstance(m, (nn.Linear, nn.Conv2d)) and n != head]
    theirs = peft.get_peft_model(build(), peft.LoraConfig(r=2, target_modules=targets, use_dora=True)).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in theirs.parameters():
            if parameter.requires_grad:
                parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
        theirs.save_pretrained(tmp_path)
        expected = theirs(x)
        assert not close(expected, build()(x), 1e-2)
        assert close(PeftModel.from_pretrained(build(), tmp_path)(x), expected)


@pytest.mark.parametrize("targets", ["all-linear", r".*\.(qkv|fc1)", ["qkv", "mlp.fc1"]])
def test_target_notations_of_stock_peft_are_understood(targets: object, tmp_path: Path) -> None:
    theirs = peft.get_peft_model(vit(), peft.LoraConfig(r=2, target_modules=targets, init_lora_weights=False)).eval()
    theirs.save_pretrained(tmp_path)
    ours = PeftModel.from_pretrained(vit(), tmp_path)
    assert close(ours(IMAGES), theirs(IMAGES))
    adapted = {name for name, _ in adapter_layers(ours.base_model)}
    assert adapted == {n for n, m in theirs.base_model.model.named_modules() if isinstance(m, peft.tuners.lora.Linear)}


def test_ranks_are_the_ones_the_methods_promise(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Linear(30, 20), nn.Conv2d(12, 14, 3))
    for config, ranks in (
        (LoraConfig(r=3), {3}),
        (LoraTsdConfig(r=3, n_directions=5, warmup_steps=1), {8}),
        (FloraConfig(r=(4, 7), kernel_r=2, target_modules=["1"]), {4}),
    ):
        model = get_peft_model(copy.deepcopy(network), config)
        model.update_and_allocate(1)
        model.save_pretrained(tmp_path, stock=True)
        values = json.loads((tmp_path / "adapter_config.json").read_text())
        assert {values["r"], *values["rank_pattern"].values()} == ranks


def test_a_name_that_ends_like_another_is_not_adapted_by_mistake(tmp_path: Path) -> None:
    network = nn.ModuleDict({"a": nn.Linear(6, 6), "b": nn.ModuleDict({"a": nn.Linear(6, 6)})})
    model = get_peft_model(copy.deepcopy(network), LoraConfig(r=2, target_modules="a"))
    fill_randomly(model)
    model.save_pretrained(tmp_path, stock=True)
    theirs = peft.PeftModel.from_pretrained(copy.deepcopy(network), tmp_path).base_model.model
    x = torch.randn(3, 6)
    assert close(theirs["a"](x), model.base_model["a"](x))
    assert type(theirs["b"]["a"]) is nn.Linear
    mixed = get_peft_model(network, LoraConfig(r=4, rank_pattern={r"b\.a": 2}))
    fill_randomly(mixed)
    mixed.save_pretrained(tmp_path, stock=True)
    theirs = peft.PeftModel.from_pretrained(
        nn.ModuleDict({"a": copy.deepcopy(network["a"].base_layer), "b": nn.ModuleDict({"a": nn.Linear(6, 6)})}),
        tmp_path,
    ).base_model.model
    assert close(theirs["a"](x), mixed.base_model["a"](x))
    assert theirs["b"]["a"].r == {"default": 2}


WRONG_IN_STOCK = {
    "conv1d circular dilated": "it drops the dilation",
    "conv2d reflect": "it pads with zeros where the layer pads by 'reflect'",
    "conv2d replicate same": "it pads with zeros where the layer pads by 'replicate'",
    "conv2d uneven kernel": "it drops the dilation",
    "conv2d grouped": "it cannot merge grouped convolutions",
    "conv2d depthwise": "it cannot merge grouped convolutions",
    "attention": "it has no right LoRA for MultiheadAttention",
    "attention with other keys": "it has no right LoRA for MultiheadAttention",
}
RIGHT_IN_STOCK = {"linear", "linear without bias", "conv1d", "conv2d", "conv2d 1x1", "conv3d", "embedding"}


@pytest.mark.parametrize(("kernel", "right"), [(1, True), (2, False), ((1, 2), False)])
def test_stock_peft_drops_a_dilation_wherever_it_spreads_a_kernel(kernel: object, right: bool, tmp_path: Path) -> None:
    model = trained(nn.Sequential(nn.Conv2d(3, 4, kernel, dilation=2)), LoraConfig(r=2))
    if right:
        model.save_pretrained(tmp_path, stock=True)
    else:
        with pytest.raises(AdapterError, match="it drops the dilation"):
            model.save_pretrained(tmp_path, stock=True)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_layers_that_stock_peft_runs_wrongly_are_refused_by_name_and_the_others_are_not(
    case: Case, tmp_path: Path
) -> None:
    model = trained(case.layer(), LoraConfig(r=2))
    if case.name in RIGHT_IN_STOCK:
        model.save_pretrained(tmp_path, stock=True)
        assert close(peft.PeftModel.from_pretrained(case.layer(), tmp_path)(case.x()), model(case.x()))
        return
    reason = WRONG_IN_STOCK.get(case.name, "it has no right LoRA for")
    with pytest.raises(AdapterError, match=rf"^0(\.\w+)?: cannot be written for stock peft: {reason}.*stock=False"):
        model.save_pretrained(tmp_path, stock=True)
    assert not list(tmp_path.iterdir())


def test_the_output_projection_of_attention_is_refused() -> None:
    network = nn.ModuleDict({"mha": nn.MultiheadAttention(8, 2)})
    model = get_peft_model(network, LoraConfig(r=2, target_modules=["out_proj"]))
    with pytest.raises(AdapterError, match=r"mha\.out_proj: .*MultiheadAttention reads the weight past its adapter"):
        model.save_pretrained("unused", stock=True)


def test_a_convolution_with_a_forward_of_its_own_is_refused() -> None:
    network = nn.Sequential(timm.layers.Conv2dSame(3, 4, 3, stride=2))
    model = get_peft_model(network, LoraConfig(r=2))
    with pytest.raises(AdapterError, match=r"^0: .*Conv2dSame has a forward of its own"):
        model.save_pretrained("unused", stock=True)


def test_a_change_that_is_no_chain_is_refused() -> None:
    model = get_peft_model(nn.Sequential(nn.Linear(4, 4)), LoraConfig(r=2))
    method = model.base_model[0].adapters["default"]["weight"]
    method.factors = lambda: None
    with pytest.raises(AdapterError, match="0: cannot be written for stock peft: Lora is no low-rank change"):
        model.save_pretrained("unused", stock=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"peft_type": "LOHA"}, r"must be of this library .* or a stock LoRA .*got peft_type 'LOHA'"),
        ({"bias": "all"}, "must be read without 'bias', got all"),
        ({"fan_in_fan_out": True}, "must be read without 'fan_in_fan_out', got True"),
        ({"lora_bias": True}, "must be read without 'lora_bias'"),
        ({"layers_to_transform": [0]}, "must be read without 'layers_to_transform'"),
        ({"layer_replication": [[0, 1]]}, "must be read without 'layer_replication'"),
        ({"trainable_token_indices": [1]}, "must be read without 'trainable_token_indices'"),
        ({"target_parameters": ["w"]}, "must be read without 'target_parameters'"),
        ({"alora_invocation_tokens": [1]}, "must be read without 'alora_invocation_tokens'"),
        ({"use_qalora": True}, "must be read without 'use_qalora'"),
        ({"something_new": {"a": 1}}, "must be read without 'something_new'"),
        ({"init_lora_weights": "pissa"}, "must not rest on a changed base weight, got init_lora_weights 'pissa'"),
        ({"r": "2"}, r"\.r: must be int"),
        ({"lora_alpha": "x"}, r"lora_alpha: must be float"),
        ({"target_modules": ["nothing"]}, "must match at least one layer"),
        ({"r": 3}, "of another shape"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_options_we_do_not_have_are_refused_by_name_and_the_model_is_untouched(
    change: dict[str, object], message: str, tmp_path: Path
) -> None:
    peft.get_peft_model(toy(), peft.LoraConfig(r=2, target_modules=["proj"])).save_pretrained(tmp_path)
    path = tmp_path / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    model = toy()
    with pytest.raises((CheckpointError, ConfigError, SagaPeftError), match=message):
        PeftModel.from_pretrained(model, tmp_path)
    assert [type(m) for m in model.modules()] == [type(m) for m in toy().modules()]
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_a_stock_adapter_on_a_layer_stock_peft_runs_wrongly_is_refused(tmp_path: Path) -> None:
    grouped = nn.Sequential(nn.Conv2d(4, 4, 3, groups=2))
    with pytest.warns(UserWarning, match="groups > 1"):
        theirs = peft.get_peft_model(copy.deepcopy(grouped), peft.LoraConfig(r=2, target_modules=["0"]))
    theirs.save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="0: stock peft is wrong there: it cannot merge grouped convolutions"):
        PeftModel.from_pretrained(grouped, tmp_path)


def test_slices_of_a_fused_weight_become_zero_rows(tmp_path: Path) -> None:
    model = trained(vit(), LoraConfig(r=2, lora_alpha=3.0, target_modules=["qkv"], qkv_parts=["q", "v"]))
    model.save_pretrained(tmp_path, stock=True)
    theirs = peft.PeftModel.from_pretrained(vit(), tmp_path)
    assert close(theirs(IMAGES), model(IMAGES))
    up = theirs.base_model.model.blocks[0].attn.qkv.lora_B["default"].weight
    assert up.shape == (72, 4)
    assert torch.count_nonzero(up[24:48]) == 0


@pytest.mark.parametrize("start", ["pissa", "milora"])
def test_starts_on_the_weight_are_written_with_twice_the_rank(start: str, tmp_path: Path) -> None:
    model = trained(vit(), LoraConfig(r=3, lora_alpha=5.0, init_lora_weights=start, target_modules=["qkv", "fc1"]))
    model.save_pretrained(tmp_path, stock=True)
    theirs = peft.PeftModel.from_pretrained(vit(), tmp_path)
    assert close(theirs(IMAGES), model(IMAGES))
    assert theirs.base_model.model.blocks[0].attn.qkv.r == {"default": 6}
