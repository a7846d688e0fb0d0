"""Time and memory of a training step with adapters, beside what a user would pick instead.

Example:
    python -m tests.benchmarks.adapter_step --out runs/adapter_step.json

Every contender trains the same model at about the same number of trained values (full fine-tuning aside). In each round
every contender makes one step (forward, loss, backward, AdamW); a contender's ratio is to the frozen base's step of the
same round. Peak memory is counted by the allocator: weights, adapters, and the most that was alive during a step.
"""

import argparse
import gc
import json
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from shared_peft.atomic import write_json
from tests.benchmarks.contenders import CONTENDERS, default_budget, trained
from vision.torchvision_ops import declare_missing_operators

MODELS = {
    "resnet50": 160,
    "convnext_tiny": 160,
    "mobilenetv3_large_100": 160,
    "efficientnet_b0": 160,
    "vit_small_patch16_224": 224,
    "swin_tiny_patch4_window7_224": 224,
}
BASE = "frozen base"


def stepper(model: nn.Module, x: Tensor, y: Tensor) -> Callable[[], None]:
    """Return a function that makes one training step."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=1e-5, fused=True)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()

    return step


def peak_bytes(step: Callable[[], None], model: nn.Module) -> int:
    """Return the most memory alive in a step: weights and adapters, and what the step and its optimiser allocate."""
    held = {tensor.data_ptr(): tensor.nbytes for tensor in (*model.parameters(), *model.buffers())}
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        step()
        step()  # with the optimiser's state and the last step's gradients in place
    results: Any = profiler.profiler
    events = [event for event in results.kineto_results.events() if event.name() == "[memory]"]
    alive = most = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        alive += event.nbytes()
        most = max(most, alive)
    return sum(held.values()) + most


def measure(name: str, size: int, batch: int, rounds: int, wanted: list[str]) -> dict[str, Any]:
    """Return the rows of one model: seconds a step by round, trained values and peak memory by contender."""
    import timm  # noqa: PLC0415

    def make() -> nn.Module:
        torch.manual_seed(0)
        return timm.create_model(name)

    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(batch, 3, size, size, generator=generator), torch.arange(batch)
    budget = default_budget(make)
    models = {contender: CONTENDERS.get(contender)(make, budget) for contender in wanted}
    steps = {contender: stepper(model, x, y) for contender, model in models.items()}
    memory = {contender: peak_bytes(step, models[contender]) for contender, step in steps.items()}
    seconds: dict[str, list[float]] = {contender: [] for contender in steps}
    gc.collect()
    gc.disable()
    for _ in range(rounds):
        for contender, step in steps.items():
            began = time.perf_counter()
            step()
            seconds[contender].append(time.perf_counter() - began)
        gc.collect()
    gc.enable()
    inference = inference_seconds(make, x, rounds)
    rows = {c: {"trained": trained(models[c]), "peak_bytes": memory[c], "seconds": seconds[c]} for c in steps}
    return {"size": size, "batch": batch, "threads": torch.get_num_threads(), "rows": rows, "inference": inference}


def inference_seconds(make: Callable[[], nn.Module], x: Tensor, rounds: int) -> dict[str, list[float]]:
    """Return seconds a forward, by round: the base, the adapted model as it stands, and merged and unloaded."""
    base, adapted = make().eval(), CONTENDERS.get("ours FLoRA")(make, default_budget(make)).eval()
    plain = CONTENDERS.get("ours FLoRA")(make, default_budget(make)).eval().merge_and_unload()  # type: ignore[operator]
    models = {"base": base, "ours, adapted": adapted, "ours, merged": plain}
    seconds: dict[str, list[float]] = {name: [] for name in models}
    with torch.no_grad():
        for done in range(rounds + 1):
            for name, model in models.items():
                began = time.perf_counter()
                model(x)
                if done:
                    seconds[name].append(time.perf_counter() - began)
    return seconds


def inference_table(results: dict[str, Any]) -> str:
    """Return a markdown table of forwards without gradients, as ratios to the base's."""
    lines = ["| model | ours, adapted / base | ours, merged / base |", "|---|---|---|"]
    for name, result in results.items():
        base, *others = result["inference"].values()
        ratios = [statistics.median(m / b for m, b in zip(mine, base, strict=True)) for mine in others]
        lines.append(f"| {name} | " + " | ".join(f"{ratio:.2f}" for ratio in ratios) + " |")
    return "\n".join(lines)


def table(results: dict[str, Any]) -> str:
    """Return a markdown table: ratio to the frozen base (middle half of the rounds), memory ratio, trained values."""
    lines = [
        "| model | contender | trained | step / frozen base | middle half | peak memory / frozen base |",
        "|---|---|---|---|---|---|",
    ]
    for name, result in results.items():
        rows = result["rows"]
        for contender, row in rows.items():
            ratios = [mine / base for mine, base in zip(row["seconds"], rows[BASE]["seconds"], strict=True)]
            low, middle, high = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
            memory = row["peak_bytes"] / rows[BASE]["peak_bytes"]
            label = f"{name}, {result['size']} px, batch {result['batch']}"
            count = "" if contender == BASE else f"{row['trained']:,}"
            shown = f"{1000 * statistics.median(row['seconds']):.0f} ms" if contender == BASE else f"{middle:.2f}"
            spread = "" if contender == BASE else f"{low:.2f}-{high:.2f}"
            lines.append(f"| {label} | {contender} | {count} | {shown} | {spread} | {memory:.2f} |")
    return "\n".join(lines)


def main() -> None:
    """Measure what is not in the file yet, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--out", type=Path, default=Path("runs/adapter_step.json"), help="results; kept rows are not measured again"
    )
    parser.add_argument("--models", nargs="*", default=list(MODELS), help="timm names")
    parser.add_argument("--contenders", nargs="*", default=CONTENDERS.names(), help="rows")
    parser.add_argument("--rounds", type=int, default=9, help="steps of each contender")
    parser.add_argument("--batch", type=int, default=8, help="images a step")
    parser.add_argument("--threads", type=int, default=2, help="threads of torch")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    declare_missing_operators()
    warnings.filterwarnings("ignore")
    results = json.loads(arguments.out.read_text()) if arguments.out.exists() else {}
    for name in arguments.models:
        if name not in results:
            contenders = list(dict.fromkeys([BASE, *arguments.contenders]))
            results[name] = measure(name, MODELS.get(name, 224), arguments.batch, arguments.rounds, contenders)
            write_json(arguments.out, results)
    chosen = {name: results[name] for name in arguments.models}
    sys.stdout.write(f"{table(chosen)}\n\n{inference_table(chosen)}\n")


if __name__ == "__main__":
    main()
