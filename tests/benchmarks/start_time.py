"""What starting on the weights' own directions costs: every layer of a model at once, on two threads.

Run: python -m tests.benchmarks.start_time
"""

import time
from collections.abc import Callable
from statistics import median

import torch
from torch import nn

from shared_peft import AdapterConfig, LoraConfig, LoraTsdConfig, get_peft_model
from shared_peft.inject import adapter_layers
from vision.torchvision_ops import declare_missing_operators

MODELS = ("vit_small_patch16_224", "resnet50")
THREADS, REPEATS, RANK = 2, 3, 8


def build(name: str) -> nn.Module:
    """Return a timm model with weights drawn from a fixed seed."""
    declare_missing_operators()
    import timm

    torch.manual_seed(0)
    return timm.create_model(name)


def attach_seconds(name: str, config: AdapterConfig) -> float:
    """Return how long attaching an adapter to every layer takes [s]."""
    model = build(name)
    return seconds(lambda: get_peft_model(model, config))


def launch_seconds(name: str, config: AdapterConfig) -> float:
    """Return how long choosing the directions of every layer takes [s], after a random change."""
    model = get_peft_model(build(name), config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.normal_(std=1e-2)
    return seconds(lambda: model.update_and_allocate(1))


def reference_seconds(name: str, config: AdapterConfig) -> float:
    """Return how long torch's own singular value decompositions of every adapted weight take [s]."""
    layers = [layer for _, layer in adapter_layers(get_peft_model(build(name), config).base_model)]
    weights = [layer.frozen_weight(slot).detach().flatten(1) for layer in layers for slot in layer.slots]
    return seconds(lambda: [torch.linalg.svd(weight, full_matrices=False) for weight in weights])


def seconds(work: Callable[[], object]) -> float:
    """Return how long a call takes [s]."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def main() -> None:
    """Print a table with one row for each model and method."""
    torch.set_num_threads(THREADS)
    methods: dict[str, tuple[Callable[[str, AdapterConfig], float], AdapterConfig]] = {
        "torch.linalg.svd, float32": (reference_seconds, LoraConfig(r=1)),
        "LoRA": (attach_seconds, LoraConfig(r=RANK)),
        "LoRA, PiSSA": (attach_seconds, LoraConfig(r=RANK, init_lora_weights="pissa")),
        "LoRA, MiLoRA": (attach_seconds, LoraConfig(r=RANK, init_lora_weights="milora")),
        "LoRA-TSD launch, matrix": (launch_seconds, LoraTsdConfig(r=RANK, warmup_steps=1)),
        "LoRA-TSD launch, HOSVD": (launch_seconds, LoraTsdConfig(r=RANK, warmup_steps=1, directions="hosvd")),
    }
    print("| model | method | seconds, best | seconds, median |\n|---|---|---|---|")
    for name in MODELS:
        for method, (measure, config) in methods.items():
            taken = [measure(name, config) for _ in range(REPEATS)]
            print(f"| {name} | {method} | {min(taken):.2f} | {median(taken):.2f} |", flush=True)


if __name__ == "__main__":
    main()
