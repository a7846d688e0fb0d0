"""What keeps adapters below full fine-tuning on a small ConvNet: rank, kernel structure or batch norm statistics?

Example:
    python -m tests.benchmarks.norm_statistics --shared ../shared --shots 20 --seeds 3

Trains resnet20 on tiny_imagenet_10 in full, in full with every batch norm's statistics frozen as adapters have them,
and with LoRA and FLoRA of several budgets. Rates were chosen on a draw that is not among the seeds, on training images
that it left over. The table gives the test accuracy, mean and standard deviation over the seeds.
"""

import argparse
import dataclasses
import statistics
import sys
from pathlib import Path

from shared_peft.atomic import write_json
from vision.adapt import Trainee
from vision.backbones import Backbone, build_backbone
from vision.datasets import draw_shots, open_images
from vision.evaluate import evaluate
from vision.fit import FitSettings, fit, start
from vision.transforms import load_pixels

FROZEN = "full, frozen statistics"
BUDGETS = {1: 6_331, 2: 12_662, 8: 50_648}  # of LoRA with these ranks


def contenders() -> dict[str, FitSettings]:
    """Return what is trained, by its name in the table."""
    rows = {"full": FitSettings(method="full", learning_rate=3e-3)}
    rows[FROZEN] = FitSettings(method="full", learning_rate=1e-3)
    for rank, budget in BUDGETS.items():
        for method, adapter in (("lora", {}), ("flora", {"kernel_r": None})):
            settings = FitSettings(method=method, adapter=adapter, budget=budget, learning_rate=1.5e-2)
            rows[f"{method}, parameters of rank {rank}"] = settings
    return rows


def begin(name: str, backbone: Backbone, settings: FitSettings, images: int) -> Trainee:
    """Return what is trained, its statistics frozen where the name says so."""
    trainee = start(backbone, settings, images)
    return dataclasses.replace(trainee, train_statistics=False) if name == FROZEN else trainee


def main() -> None:
    """Train every contender on every draw and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=Path("../shared"))
    parser.add_argument("--shots", type=int, default=20)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    images = open_images(str(arguments.shared / "data/vision/tiny_imagenet_10"), ())
    weights = arguments.shared / "weights/resnet20_cifar10.th"
    data = build_backbone("resnet20", 10, checkpoint=weights, new_head=True).data
    test = load_pixels(images.test, data)
    scores: dict[str, list[float]] = {}
    trained: dict[str, int] = {}
    for seed in range(arguments.seeds):
        train = load_pixels(images.train.take(draw_shots(images.train, arguments.shots, seed)), data)
        for name, settings in contenders().items():
            chosen = dataclasses.replace(settings, epochs=arguments.epochs, seed=seed)
            backbone = build_backbone("resnet20", 10, checkpoint=weights, new_head=True)
            trainee = begin(name, backbone, chosen, len(train.labels))
            fitted = fit(backbone, train, chosen, trainee=trainee)
            scores.setdefault(name, []).append(100 * evaluate(fitted.trainee.model, test, data, 10).accuracy)
            trained[name] = sum(fitted.trainable.values())
            sys.stderr.write(f"seed {seed}: {name}: {scores[name][-1]:.1f}\n")
    print("| method | accuracy [%] | trained |\n|---|---|---|")
    for name, values in scores.items():
        print(f"| {name} | {statistics.mean(values):.1f} ± {statistics.stdev(values):.1f} | {trained[name]:,} |")
    if arguments.out is not None:
        write_json(arguments.out, scores)


if __name__ == "__main__":
    main()
