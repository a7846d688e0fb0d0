"""LoRA of stock Hugging Face peft (github.com/huggingface/peft), on the layers and with the ranks that ours has."""

from typing import Any

import torch

from shared_peft.errors import TargetError
from shared_peft.inject import plan
from shared_peft.packages import load_package
from shared_peft.plain_lora import exact_pattern, exact_targets
from shared_peft.stock import refusal
from vision.adapt import Trainee, adapter_config, split_head
from vision.backbones import Backbone
from vision.comparison.rivals.rival import RIVALS, Rival
from vision.fit import FitSettings
from vision.torchvision_ops import declare_missing_operators


def _package() -> Any:
    declare_missing_operators()
    return load_package("peft", "--against peft", extra="bench")


def _check() -> None:
    _package()


def _begin(backbone: Backbone, settings: FitSettings, images: int) -> Trainee:
    """Attach stock LoRA where ours would be.

    Raises:
        TargetError: a layer that stock peft runs wrongly.
    """
    peft, model, head = _package(), backbone.model, list(backbone.head)
    steps = settings.steps(images)
    config: Any = adapter_config(backbone, settings.method, settings.adapter, steps=steps, budget=settings.budget)
    adapted: dict[str, Any] = {planned.layer: planned.config for planned in plan(model, config)}
    for name in adapted:
        if reason := refusal(model, name, model.get_submodule(name)):
            fix = "Leave the layer out by --target-modules, or drop --against peft"
            raise TargetError(name, "must be a layer that stock peft adapts rightly", reason, fix)
    stock = peft.LoraConfig(
        lora_dropout=config.lora_dropout,
        use_rslora=config.use_rslora,
        target_modules=exact_targets(model, adapted),
        rank_pattern=exact_pattern({name: layer.r for name, layer in adapted.items()}),
        alpha_pattern=exact_pattern({name: layer.lora_alpha for name, layer in adapted.items()}),
        modules_to_save=head,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        tuned = peft.get_peft_model(model, stock)
    return Trainee(tuned, *split_head(tuned, backbone.head))


RIVALS.register("peft")(Rival("LoRA of stock Hugging Face peft", "lora", _check, _begin))
