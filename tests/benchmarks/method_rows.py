"""Every registered adapter method at an equal budget on one real task: the measured row of each page of docs/methods.

Example:
    python -m tests.benchmarks.method_rows --data SHARED/data/vision/sign_digits \
        --checkpoint SHARED/weights/resnet20_cifar10.th --write

The trainings are those of `vision compare`, kept in --out and not run again. A step is timed with all methods in turns,
and each method's ratio is to full fine-tuning's step of the same round.
"""

import argparse
import dataclasses
import json
import statistics
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import torch

from shared_peft import METHODS
from shared_peft.atomic import write_json, write_text
from tests.benchmarks.adapter_step import stepper
from tests.method_pages import MEASURED
from vision.adapt import FULL, PROBE
from vision.backbones import build_backbone
from vision.compare import CompareConfig, compare
from vision.comparison.contender import contenders
from vision.comparison.table import Row
from vision.fit import FitSettings

BACKBONE, SIZE, CLASSES = "resnet20", 32, 10
WARM_UP = 3
HEAD = ("method", "accuracy [%]", "adapter parameters", "learning rate", "step / full fine-tuning")


def settings_of(arguments: argparse.Namespace) -> CompareConfig:
    """Return the comparison: the probe, full fine-tuning and every adapter, rates chosen inside a draw of its own."""
    return CompareConfig(
        backbone=BACKBONE,
        checkpoint=arguments.checkpoint,
        data=str(arguments.data),
        methods=(PROBE, FULL, *METHODS.names()),
        shots=(20,),
        seeds=arguments.seeds,
        budget=arguments.budget,
        rate_factors=(0.3, 1.0, 3.0),
        validated_folds=1,
        epochs=arguments.epochs,
        out=arguments.out,
        resume=arguments.out.exists(),
    )


def step_ratios(config: CompareConfig, budget: int, rounds: int) -> dict[str, float]:
    """Return the median time of a training step of every method, as a multiple of full fine-tuning's."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(config.batch_size, 3, SIZE, SIZE, generator=generator)
    y = torch.arange(config.batch_size) % CLASSES
    base = FitSettings(adapter={"target_modules": "all"}, epochs=config.epochs, batch_size=config.batch_size)
    steps = {}
    for row in contenders(config.methods, (), base, budget):
        backbone = build_backbone(BACKBONE, CLASSES, checkpoint=config.checkpoint, new_head=True)
        trainee = row.begin(backbone, dataclasses.replace(row.settings, seed=0), 20 * CLASSES)
        trainee.enter_training()
        steps[row.name] = stepper(trainee.model, x, y)
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for done in range(rounds + WARM_UP):
        for name, step in steps.items():
            began = time.perf_counter()
            step()
            if done >= WARM_UP:
                seconds[name].append(time.perf_counter() - began)
    return {
        name: statistics.median(mine / full for mine, full in zip(taken, seconds[FULL], strict=True))
        for name, taken in seconds.items()
    }


def table(rows: list[Row], ratios: dict[str, float]) -> str:
    """Return one Markdown row a method, in the registry's order."""
    lines = [f"| {' | '.join(HEAD)} |", "|" + "---|" * len(HEAD)]
    for row in rows:
        score = f"{100 * row.score:.1f} +- {100 * row.score_sd:.1f}"
        cells = (f"`{row.method}`", score, f"{row.adapter:,}", f"{row.learning_rate:.2g}", f"{ratios[row.method]:.2f}")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def kept_ratios(path: Path, config: CompareConfig, budget: int, rounds: int) -> dict[str, float]:
    """Return the ratios in a file, measured anew where a method is missing."""
    found: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    if set(config.methods) - found.keys():
        found = step_ratios(config, budget, rounds)
        write_json(path, found)
    return found


def page(rows: list[Row], ratios: dict[str, float], config: CompareConfig, budget: int) -> str:
    """Return docs/methods/measured.md."""
    return f"""# The methods, measured

<!-- Written by: python -m tests.benchmarks.method_rows --write -->

{BACKBONE} pre-trained on CIFAR-10, fine-tuned on 20 images a class of hand signs (10 classes, 562 test images),
{config.seeds} draws of the images, {config.epochs} epochs. Accuracy is the mean over the draws +- the standard
deviation. Every adapter may have {budget:,} parameters; the rank is the largest that fits, and methods without a rank
take what they need. All rows train the classifier too, which is not counted. Each method's learning rate is chosen from
0.3, 1 and 3 times its default on one held-out fold of another draw. A step is forward, backward and AdamW on 32 images,
one thread; methods with phases are timed in their first.

Few draws on one task rank nothing: differences of two or three points are within noise, and a rate at the edge of those
tried (0.0015 to 0.015 for adapters) may not be a method's best. The table shows that every method trains, what it
costs, and roughly where it stands.

{table(rows, ratios)}

`probe` trains the classifier alone, `full` everything, batch norms too.

```text
python -m tests.benchmarks.method_rows --data SHARED/data/vision/sign_digits \\
    --checkpoint SHARED/weights/resnet20_cifar10.th --write
```
"""


def main() -> None:
    """Train what is missing, time the steps, print the table and with --write renew the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="class folders of the hand signs")
    parser.add_argument("--checkpoint", type=Path, required=True, help="weights of resnet20")
    parser.add_argument("--out", type=Path, default=Path("runs/method_rows"), help="kept trainings")
    parser.add_argument("--budget", default="20k", help="largest number of adapter parameters")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=15, help="timed steps of each method")
    parser.add_argument("--write", action="store_true", help=f"write {MEASURED.name}")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    config = settings_of(arguments)
    done = compare(config, progress=sys.stderr.isatty())
    ratios = kept_ratios(arguments.out / "steps.json", config, done.budget, arguments.rounds)
    sys.stdout.write(table(done.rows, ratios) + "\n")
    if arguments.write:
        write_text(MEASURED, page(done.rows, ratios, config, done.budget))


if __name__ == "__main__":
    main()
