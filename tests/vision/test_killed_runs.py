"""Runs as processes: killed at random moments and resumed, or two at once, they end in the weights of one run alone."""

import json
import multiprocessing
import os
import random
import signal
import socket
import time
from pathlib import Path
from typing import Any

import pytest
import torch

import vision.fit as fit_module
from shared_peft.training import one_voice
from shared_peft.weights import read_tensors
from vision.finetune import FinetuneConfig, finetune

KILLS = 10
SERVER = multiprocessing.get_context("forkserver")  # one process imports everything, each run is a copy of it
SERVER.set_forkserver_preload(["tests.vision.preloaded", __name__])


def killed_config(checkpoint: Path, out: Path, *, resume: bool) -> FinetuneConfig:
    options = {"shots": 8, "classes": ("7", "8", "9"), "epochs": 60, "batch_size": 9, "ema_decay": 0.9}
    options |= {"gradient_accumulation": 2, "patience": 60, "validation_fraction": 0.25, "method": "full"}
    return FinetuneConfig("small_conv", "digits", out, checkpoint=checkpoint, resume=resume, **options)


def counted_run(checkpoint: Path, out: Path, batches: Any) -> None:
    """Train as `finetune` does, counting batches, with a pause before each and a checkpoint every third step."""
    torch.set_num_threads(1)
    make_batches = fit_module.make_batches

    def counted(*arguments):
        batch = make_batches(*arguments)

        def next_batch(index):
            batches.value += 1
            time.sleep(0.01)
            return batch(index)

        return next_batch

    fit_module.make_batches, fit_module.CHECKPOINT_EVERY = counted, 3
    finetune(killed_config(checkpoint, out, resume=True))


def test_a_run_killed_at_ten_random_moments_ends_in_the_same_weights(small_conv_run, tmp_path):
    whole = finetune(killed_config(small_conv_run, tmp_path / "whole", resume=False)).results
    moments = random.Random(4)
    reached = []
    for _ in range(KILLS):
        batches = SERVER.RawValue("i", 0)
        process = SERVER.Process(target=counted_run, args=(small_conv_run, tmp_path / "cut", batches))
        process.start()
        last = moments.randint(1, 15)
        while batches.value < last:
            time.sleep(0.001)
            assert process.is_alive()
        time.sleep(moments.uniform(0, 0.02))  # anywhere in the batch, its step and its checkpoint
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        assert process.exitcode == -signal.SIGKILL
        path = tmp_path / "cut" / "checkpoint.pt"
        reached.append(torch.load(path, weights_only=True)["step"] if path.exists() else 0)
    assert reached == sorted(reached)
    assert 0 < reached[-1] < whole["steps"]
    cut = finetune(killed_config(small_conv_run, tmp_path / "cut", resume=True)).results
    weights = [read_tensors(tmp_path / name / "model.safetensors") for name in ("whole", "cut")]
    for name, tensor in weights[0].items():
        assert torch.equal(tensor, weights[1][name]), name
    assert {**cut, "train_seconds": 0} == {**whole, "train_seconds": 0}
    logs = [(tmp_path / name / "metrics.jsonl").read_text().splitlines() for name in ("whole", "cut")]
    kept = [[{**json.loads(line), "seconds": 0} for line in log] for log in logs]
    assert kept[0] == kept[1]


def pair_config(checkpoint: Path, out: Path, method: str) -> FinetuneConfig:
    options = {"shots": 7, "classes": ("7", "8", "9"), "epochs": 3, "batch_size": 5, "image_size": 8}
    options |= {"adapter": ("r=2",) if method == "lora" else ()}
    options |= {"patience": 2, "ema_decay": 0.5, "layer_decay": 0.8, "method": method, "learning_rate": 1e-3}
    return FinetuneConfig("small_vit", "digits", out, checkpoint=checkpoint, **options)


def work(rank: int, port: int, checkpoint: Path, out: Path, method: str) -> None:
    """One process of two, as `accelerate launch` would start it."""
    torch.set_num_threads(1)
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "ACCELERATE_USE_CPU": "true"}
    os.environ.update(address | {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"})
    with one_voice():
        finetune(pair_config(checkpoint, out, method))


@pytest.mark.parametrize("method", ["full", "lora"])
def test_two_processes_end_where_one_does(tmp_path, method):
    from shared_peft.weights import write_tensors
    from vision.backbones import build_backbone

    start = tmp_path / "start.safetensors"
    write_tensors(start, build_backbone("small_vit", 3).model.state_dict())
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    pair = [SERVER.Process(target=work, args=(r, port, start, tmp_path / "two", method)) for r in range(2)]
    for process in pair:
        process.start()
    for process in pair:
        process.join(120)
        assert process.exitcode == 0
    one = finetune(pair_config(start, tmp_path / "one", method)).results
    two = json.loads((tmp_path / "two" / "results.json").read_text())
    assert (two["steps"], two["kept_step"], two["count"]) == (one["steps"], one["kept_step"], one["count"])
    assert two["train_loss"] == pytest.approx(one["train_loss"], rel=1e-4)
    files = ["model.safetensors", *(["adapter/adapter_model.safetensors"] if method == "lora" else [])]
    for file in files:
        alone, together = (read_tensors(tmp_path / name / file) for name in ("one", "two"))
        torch.testing.assert_close(together, alone, rtol=1e-3, atol=1e-4)
    names = [sorted(str(p.relative_to(tmp_path / n)) for p in (tmp_path / n).rglob("*")) for n in ("one", "two")]
    assert names[0] == names[1]
