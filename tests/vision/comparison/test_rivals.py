"""Rows of other libraries: our loop, our layers, our ranks, their adapter."""

import dataclasses

import pytest
import torch

from shared_peft.errors import TargetError
from shared_peft.training import TrainConfig
from vision.backbones import build_backbone
from vision.compare import CompareConfig, compare
from vision.comparison.contender import Contender
from vision.comparison.pace import paces
from vision.comparison.rivals import RIVALS
from vision.datasets import open_images
from vision.evaluate import predict_logits
from vision.fit import FitSettings, fit, start
from vision.torchvision_ops import declare_missing_operators
from vision.transforms import load_pixels

declare_missing_operators()
import peft  # noqa: E402  # isort: skip

SETTINGS = FitSettings(method="lora", budget=2_000, epochs=4, batch_size=8, learning_rate=0.02)


def fresh(run):
    return build_backbone("small_conv", 2, checkpoint=run, new_head=True)


def test_with_the_same_start_values_stock_peft_ends_in_our_model(small_conv_run, tmp_path):
    images = open_images("digits", ("7", "8")).train
    ours, theirs = fresh(small_conv_run), fresh(small_conv_run)
    pixels = load_pixels(images.take(torch.arange(0, 96, 4)), ours.data)
    first, second = start(ours, SETTINGS, 24), RIVALS.get("peft").begin(theirs, SETTINGS, 24)
    first.peft.save_pretrained(tmp_path, stock=True)
    from safetensors.torch import load_file

    stored = load_file(tmp_path / "adapter_model.safetensors")
    assert all(float(value.abs().max()) == 0 for name, value in stored.items() if "lora_B" in name)
    before = predict_logits(second.model, pixels.values, ours.data)
    peft.set_peft_model_state_dict(second.model, stored)
    assert [sum(p.numel() for p in part) for part in (first.body, first.head)] == [
        sum(p.numel() for p in part) for part in (second.body, second.head)
    ]
    found = [
        fit(backbone, pixels, SETTINGS, trainee=trainee) for backbone, trainee in ((ours, first), (theirs, second))
    ]
    assert found[0].trainable == found[1].trainable
    logits = [predict_logits(each.trainee.model, pixels.values, ours.data) for each in found]
    assert float((logits[0] - before).abs().max()) > 0.1
    assert torch.allclose(logits[0], logits[1], atol=1e-3)


def test_a_rival_has_the_rank_the_layers_and_the_head_of_our_row(small_conv_run, tmp_path, monkeypatch):
    asked = {"methods": ("probe", "lora"), "against": ("peft",), "shots": (2,), "seeds": 2, "epochs": 1}
    asked |= {"budget": "2k", "classes": tuple("012"), "rate_factors": (0.5, 1.0), "folds": 2, "validated_folds": 1}
    seen = []
    import vision.fit as module
    from shared_peft.training import loop

    def spied(model, objective, batches, train_config, **rest):
        seen.append((train_config, batches(0)[1].tolist(), [group["lr"] for group in rest["parameters"]]))
        return loop.train(model, objective, batches, train_config, **rest)

    monkeypatch.setattr(module, "train", spied)
    done = compare(CompareConfig("small_conv", "digits", tmp_path / "run", checkpoint=small_conv_run, **asked))
    rows = {row.method: row for row in done.rows}
    assert list(rows) == ["probe", "lora", "peft-lora"]
    same = ("adapter", "trainable", "learning_rate", "shots", "seeds")
    assert [getattr(rows["lora"], name) for name in same] == [getattr(rows["peft-lora"], name) for name in same]
    assert rows["peft-lora"].rate_from == "as lora"
    first, second = seen[-6:-3], seen[-3:]  # draw 0: probe, lora, peft-lora; draw 1: the other way round
    assert first[1] == first[2]
    assert second[0] == second[1]
    assert isinstance(first[1][0], TrainConfig)
    assert first[1] != second[1]
    assert [(pace.row, pace.rival, pace.pairs) for pace in done.paces] == [("lora", "peft-lora", 2)]


def test_the_pace_is_the_median_of_the_pairs():
    rows = [Contender("lora", SETTINGS), Contender("peft-lora", SETTINGS, tuned_as="lora")]
    planted = [(1.0, 2.0), (3.0, 2.0), (0.8, 1.0)]
    cells = [
        {"method": row.name, "shots": 5, "seed": seed, "seconds_per_epoch": seconds}
        for seed, pair in enumerate(planted)
        for row, seconds in zip(rows, pair, strict=True)
    ]
    (pace,) = paces(rows, cells)
    assert dataclasses.astuple(pace) == ("lora", "peft-lora", 0.8, 0.5, 1.5, 3)


def test_a_layer_that_stock_peft_runs_wrongly_is_named():
    backbone = build_backbone("timm/test_efficientnet", 2, image_size=32)
    settings = dataclasses.replace(SETTINGS, adapter={"r": 1}, budget=None)
    with pytest.raises(
        TargetError, match=r"must be a layer that stock peft adapts rightly, got it cannot merge grouped"
    ):
        RIVALS.get("peft").begin(backbone, settings, 8)
