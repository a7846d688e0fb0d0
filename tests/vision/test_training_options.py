"""Options of fine-tuning, each against an independent reference: depths, schedules, accumulation, checkpointing."""

import contextlib
import json

import pytest
import torch

from shared_peft.errors import ConfigError, DataError
from shared_peft.weights import read_tensors
from vision.adapt import adapt
from vision.backbones import build_backbone
from vision.datasets import open_images
from vision.depth import decayed_groups, depths
from vision.finetune import FinetuneConfig, finetune
from vision.fit import FitSettings, fit, hold_out, start
from vision.recompute import recomputed_blocks
from vision.transforms import Pixels, load_pixels

DEEP = ["timm/test_vit", "timm/test_resnet", "timm/test_convnext", "vit_cifar10_postnorm", "resnet20", "small_conv"]


def example(name: str, count: int = 4) -> tuple:
    backbone = build_backbone(name, 3, image_size=32)
    generator = torch.Generator().manual_seed(0)
    return backbone, torch.randn(count, backbone.data.channels, 32, 32, generator=generator)


def random_pixels(backbone, count: int = 12) -> Pixels:
    generator = torch.Generator().manual_seed(1)
    shape = (count, backbone.data.channels, backbone.data.size, backbone.data.size)
    values = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
    labels = (torch.arange(count) - 5).clamp(0, 2)  # uneven: a gradient that is zero but for rounding is no test
    return Pixels(values, labels, tuple(map(str, range(count))))


def weights(model: torch.nn.Module) -> torch.Tensor:
    return torch.cat([tensor.flatten().double() for tensor in model.state_dict().values()])


@pytest.mark.parametrize("name", ["timm/test_vit", "timm/resnet18", "timm/convnext_atto", "vit_cifar10"])
def test_layer_decay_gives_the_rates_of_timm(name):
    model = build_backbone(name, 3).model
    from timm.optim import param_groups_layer_decay  # can be imported now that a backbone is

    reference = {
        id(parameter): 0.1 * group["lr_scale"]
        for group in param_groups_layer_decay(model, layer_decay=0.7)
        for parameter in group["params"]
    }
    groups = decayed_groups(model, list(model.parameters()), 0.1, 0.7)
    found = {id(parameter): group["lr"] for group in groups for parameter in group["params"]}
    assert found == pytest.approx(reference)


def test_depths_of_models_without_a_grouping_follow_their_blocks():
    found = depths(build_backbone("resnet20", 3).model)
    assert found["conv1.weight"] == found["bn1.bias"] == 0
    blocks = [f"layer{stage}.{block}." for stage in (1, 2, 3) for block in range(3)]
    for depth, block in enumerate(blocks, start=1):
        assert {value for name, value in found.items() if name.startswith(block)} == {depth}
    assert found["linear.weight"] == 10
    found = depths(build_backbone("vit_cifar10_postnorm", 3).model)
    assert found["cls_token"] == found["pos_embed"] == found["patch_embed.proj.weight"] == 0
    assert [found[f"transformer.layers.{block}.self_attn.in_proj_weight"] for block in range(6)] == [1, 2, 3, 4, 5, 6]
    assert found["mlp_head.0.weight"] == found["mlp_head.1.weight"] == 7


@pytest.mark.parametrize("name", DEEP)
def test_an_adapter_learns_at_the_rate_of_its_layer(name):
    before = depths(build_backbone(name, 3, image_size=32).model)
    trainee = adapt(build_backbone(name, 3, image_size=32), "flora", {"r": 1})
    after = depths(trainee.inner)
    assert max(after.values()) == max(before.values())
    for parameter, depth in before.items():
        layer = parameter.rpartition(".")[0]
        inside = {value for name, value in after.items() if layer and name.startswith(f"{layer}.adapters.")}
        assert inside <= {depth}, parameter
    grouped = decayed_groups(trainee.inner, trainee.body, 1.0, 0.5)
    assert sum(len(group["params"]) for group in grouped) == len(trainee.body) > 0


@pytest.mark.parametrize("name", DEEP[:-1])
def test_checkpointing_gives_the_gradients_and_statistics_of_plain_training(name):
    found = []
    for again in (False, True):
        backbone, images = example(name)
        torch.manual_seed(3)
        model = backbone.model.train()
        first_norm = next(m for m in model.modules() if isinstance(m, (torch.nn.LayerNorm, torch.nn.BatchNorm2d)))
        with recomputed_blocks(model) if again else contextlib.nullcontext(4) as blocks:
            assert blocks >= 4
            model(images).square().sum().backward()
        assert not any("forward" in vars(module) for module in model.modules())
        assert first_norm.weight.grad is not None
        found.append((weights(model), [parameter.grad.clone() for parameter in model.parameters()]))
    assert torch.equal(found[0][0], found[1][0])
    for plain, recomputed in zip(found[0][1], found[1][1], strict=True):
        torch.testing.assert_close(recomputed, plain, rtol=1e-5, atol=1e-6)


def test_checkpointing_runs_every_block_twice_and_holds_less():
    backbone, images = example("timm/test_vit")
    model, counts = backbone.model.train(), {"runs": 0, "held": 0}

    def count(what: str, amount: int, value: torch.Tensor) -> torch.Tensor:
        counts[what] += amount
        return value

    model.blocks[2].mlp.fc1.register_forward_hook(lambda module, given, answer: count("runs", 1, answer))
    found = []
    for again in (False, True):
        counts.update(runs=0, held=0)
        hooks = torch.autograd.graph.saved_tensors_hooks(lambda t: count("held", t.numel(), t), lambda t: t)
        with recomputed_blocks(model) if again else contextlib.nullcontext(), hooks:
            loss = model(images).sum()
        found.append(counts["held"])
        with recomputed_blocks(model) if again else contextlib.nullcontext():
            loss.backward()
        assert counts["runs"] == 1 + again
    assert found[1] < found[0] / 2


def test_a_checkpointed_adapter_run_ends_in_the_same_weights():
    found = []
    for again in (False, True):
        backbone = build_backbone("vit_cifar10", 3, new_head=True)
        settings = FitSettings("lora", {"r": 2}, epochs=2, batch_size=4, gradient_checkpointing=again)
        found.append(weights(fit(backbone, random_pixels(backbone), settings).trainee.model))
    torch.testing.assert_close(found[0], found[1], rtol=1e-5, atol=1e-6)


def test_accumulated_batches_are_one_large_batch():
    found = []
    for size, micros in ((12, 1), (4, 3)):
        backbone = build_backbone("vit_cifar10", 3, new_head=True)
        changes = {"epochs": 3, "batch_size": size, "gradient_accumulation": micros, "augment": "none"}
        fitted = fit(backbone, random_pixels(backbone), FitSettings("probe", **changes))
        assert fitted.steps == 3
        found.append(weights(fitted.trainee.model))
    torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=1e-5)


def test_bf16_moves_the_weights_like_full_precision_and_answers_in_32_bits():
    found = []
    for precision in ("no", "bf16"):
        backbone = build_backbone("vit_cifar10", 3, new_head=True)
        settings = FitSettings("probe", epochs=3, batch_size=4, precision=precision)
        model = fit(backbone, random_pixels(backbone), settings).trainee.model
        assert model(torch.zeros(1, 3, 32, 32)).dtype == torch.float32
        found.append(model.head.weight.detach().flatten())
    assert not torch.equal(found[0], found[1])
    assert torch.nn.functional.cosine_similarity(found[0], found[1], dim=0) > 0.98


def test_bitfit_trains_every_bias_and_the_head_alone():
    for name in ("timm/test_vit", "resnet20", "vit_cifar10_postnorm"):
        backbone, _ = example(name)
        biases = {k for k, _ in backbone.model.named_parameters() if k.endswith(("bias", "in_proj_bias"))}
        trainee = start(backbone, FitSettings("bitfit"), 3)
        trained = {k for k, parameter in backbone.model.named_parameters() if parameter.requires_grad}
        assert trained == biases | {f"{head}.weight" for head in backbone.head}
        assert not trainee.train_statistics


def config(run, out, **changes) -> FinetuneConfig:
    values = {"shots": 6, "epochs": 8, "batch_size": 9, "classes": ("7", "8", "9"), "adapter": ("r=2",)}
    return FinetuneConfig("small_conv", "digits", out, checkpoint=run, **{**values, **changes})


def test_patience_keeps_the_weights_that_validate_best(small_conv_run, tmp_path):
    changes = {"patience": 2, "epochs": 40, "learning_rate": 0.3, "validation_fraction": 0.34}
    results = finetune(config(small_conv_run, tmp_path / "run", **changes)).results
    assert (results["train_images"], results["validation_images"]) == (12, 6)
    log = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    validated = {row["step"]: row["validation"] for row in log if "validation" in row}
    assert results["kept_step"] == min(validated, key=lambda step: (validated[step], step))
    assert results["steps"] == min(results["kept_step"] + 2, 40)
    backbone = build_backbone("small_conv", 3, checkpoint=small_conv_run, new_head=True)
    images = open_images("digits", ("7", "8", "9")).train
    from vision.datasets import draw_shots
    from vision.fit import _validate
    from vision.tasks import TASKS
    from vision.trained import load_run

    shots = load_pixels(images.take(draw_shots(images, 6, 0)), backbone.data)
    held = hold_out(shots, 0.34, 0)[1]
    assert torch.bincount(held.labels).tolist() == [2, 2, 2]
    with torch.no_grad():
        loss = _validate(held, backbone.data, TASKS.get("single-label"))(load_run(tmp_path / "run").model)
    assert loss == pytest.approx(min(validated.values()), rel=1e-4)


def test_the_average_of_the_weights_is_kept(small_conv_run, tmp_path):
    heads = []
    for decay in (0.0, 0.9):
        finetune(config(small_conv_run, tmp_path / str(decay), method="probe", adapter=(), ema_decay=decay))
        heads.append(read_tensors(tmp_path / str(decay) / "model.safetensors")["fc.weight"])
    assert 0.3 < heads[1].norm() / heads[0].norm() < 0.99  # it lags behind, on the way from zero


def test_label_smoothing_is_that_of_its_formula():
    from vision.tasks import TASKS

    logits = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 1, 3, 2, 2])
    spread = 0.8 * torch.nn.functional.one_hot(labels, 4) + 0.2 / 4
    expected = -(spread * logits.log_softmax(1)).sum(1).mean()
    assert float(TASKS.get("single-label").loss(logits, labels, 0.2)) == pytest.approx(float(expected))
    shares = torch.nn.functional.one_hot(labels, 4).float()
    assert float(TASKS.get("single-label").loss(logits, shares, 0.2)) == pytest.approx(float(expected))


def test_phases_of_an_adapter_follow_optimiser_steps_not_batches():
    backbone = build_backbone("vit_cifar10", 3, new_head=True)
    fields = {"r": 2, "n_directions": 2, "warmup_steps": 2}
    settings = FitSettings("lora_tsd", fields, epochs=4, batch_size=4, gradient_accumulation=3)
    model = fit(backbone, random_pixels(backbone), settings).trainee.model
    launched = {int(tensor) for name, tensor in model.state_dict().items() if name.endswith("launched_at")}
    assert launched == {2}


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"layer_decay": 1.5}, ConfigError, r"layer_decay: must be in \(0, 1\], got 1.5"),
        ({"label_smoothing": 1.0}, ConfigError, r"label_smoothing: must be in \[0, 1\)"),
        ({"ema_decay": -1.0}, ConfigError, r"ema_decay: must be in \[0, 1\)"),
        ({"gradient_accumulation": 0}, ConfigError, "gradient_accumulation: must be at least 1"),
        ({"patience": -1}, ConfigError, "patience: must be at least 0"),
        ({"learning_rate": -1.0}, ConfigError, "learning_rate: must be positive"),
        ({"patience": 1, "validation_fraction": 1.0}, ConfigError, r"--validation-fraction: must be in \(0, 1\)"),
        ({"patience": 1, "shots": 1}, DataError, "--patience: must leave images to validate on"),
        ({"label_correlation": "homi"}, ConfigError, "--label-correlation: needs images with several labels"),
        ({"precision": "fp16"}, ConfigError, "must be no or bf16 on a CPU"),
    ],
)
def test_options_that_make_no_sense_are_refused_before_anything_is_written(
    small_conv_run, tmp_path, changes, error, message
):
    with pytest.raises(error, match=message):
        finetune(config(small_conv_run, tmp_path / "run", **changes))
    assert not (tmp_path / "run").exists()
