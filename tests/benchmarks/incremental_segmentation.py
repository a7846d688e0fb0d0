"""New classes from image-level labels: what is learnt, and what is forgotten, beside naive fine-tuning.

Example:
    python -m tests.benchmarks.incremental_segmentation --seeds 1

A small segmenter learns four shapes from masks; the other two are in its images as background. Then it learns those
two. Every contender starts from the same old model and sees the same images. The table gives the mean IoU of the old
and of the new classes on test images, mean and standard deviation over the seeds.
"""

import argparse
import copy
import statistics
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from shared_peft.atomic import write_json
from vision.backbones.family import Backbone, BackboneSpec
from vision.segmentation.datasets.shapes import shapes_of
from vision.segmentation.fit import SegmentSettings, fit_masks, start
from vision.segmentation.incremental.fit import StepRules, fit_new_classes
from vision.segmentation.incremental.widen import widen
from vision.segmentation.masked import MaskedPixels, keep_classes, load_masked
from vision.segmentation.model import build_segmenter
from vision.segmentation.predict import predict_masks
from vision.segmentation.scores import score_masks

OLD, NEW = ("circle", "square", "triangle", "cross"), ("ring", "star")
SIZE_PX = 64
FULL = SegmentSettings(method="full", batch_size=16, learning_rate=2e-3, head_learning_rate=3e-3)
PROBE = replace(FULL, method="probe")
LORA = replace(FULL, method="lora", learning_rate=5e-3, adapter={"r": 4})
FLORA = replace(FULL, method="flora", learning_rate=5e-3, adapter={"r": 4})
NAIVE = StepRules(distil=False, sure=2.0)
CONTENDERS: dict[str, tuple[SegmentSettings, StepRules | None]] = {
    "naive, true masks of the new classes": (FULL, None),
    "naive, image-level labels": (FULL, NAIVE),
    "distilled, not exclusive": (FULL, StepRules(sure=2.0)),
    "exclusive, not refined": (FULL, StepRules(refined=False)),
    "exclusive": (FULL, StepRules()),
    "exclusive, head only": (PROBE, StepRules()),
    "exclusive, LoRA": (LORA, StepRules()),
    "exclusive, FLoRA": (FLORA, StepRules()),
}


def sides(train: int, test: int, seed: int, classes: tuple[str, ...]) -> tuple[MaskedPixels, MaskedPixels]:
    """Return both sides with these classes; the other shapes are background."""
    data = keep_classes(shapes_of(train, test, SIZE_PX, seed), classes)
    return load_masked(data.train, SIZE_PX), load_masked(data.test, SIZE_PX)


def scored(backbone: Backbone, model: object, test: MaskedPixels) -> tuple[float, float]:
    """Return the mean IoU of the old and of the new classes, in percent."""
    scores = score_masks(predict_masks(model, test.values, backbone), test.masks, len(test.classes))  # type: ignore[arg-type]
    split = len(OLD) + 1
    spans = range(1, split), range(split, len(test.classes))
    old, new = (100 * scores.mean_of(span) for span in spans)
    return old, new


def one_seed(
    seed: int, arguments: argparse.Namespace, wanted: list[str], tell: Callable[[str], None]
) -> dict[str, tuple[float, float]]:
    """Return (old mIoU, new mIoU) of every contender for one seed."""
    old_train, _ = sides(arguments.images, 1, seed, OLD)
    all_train, all_test = sides(arguments.images, arguments.test_images, seed + 1_000, (*OLD, *NEW))
    joint_train, _ = sides(arguments.images, 1, seed, (*OLD, *NEW))
    first = replace(FULL, epochs=arguments.epochs, seed=seed)

    def learnt(train: MaskedPixels) -> Backbone:
        spec = BackboneSpec(arguments.backbone, len(train.classes), SIZE_PX)
        backbone = build_segmenter(spec, seed=seed)
        fit_masks(start(backbone, first, len(train.names)), train, backbone.data, first)
        return backbone

    old = learnt(old_train)
    results = {"the old model": scored(old, old.model, all_test)}
    new_masks = all_train.masks * (all_train.masks > len(OLD))
    for name in wanted:
        settings, rules = CONTENDERS[name]
        settings = replace(settings, epochs=arguments.step_epochs, seed=seed)
        wide = widen(old, len(NEW))
        trainee = start(wide, settings, len(all_train.names))
        if rules is None:
            fit_masks(trainee, replace(all_train, masks=new_masks), wide.data, settings)
        else:
            presence, before = all_train.presence(NEW), copy.deepcopy(old.model)
            fit_new_classes(trainee, before, all_train.values, presence, wide.data, settings, rules=rules)
        results[name] = scored(wide, trainee.model, all_test)
        tell(f"seed {seed}: {name}: old {results[name][0]:.1f}, new {results[name][1]:.1f}")
    if arguments.joint:
        joint = learnt(joint_train)
        results["all masks at once"] = scored(joint, joint.model, all_test)
    return results


def table(results: dict[str, list[tuple[float, float]]]) -> str:
    """Return a markdown table, one line a contender."""

    def cell(values: list[float]) -> str:
        return f"{statistics.mean(values):.1f} ± {statistics.pstdev(values):.1f}"

    lines = ["| step | old classes mIoU [%] | new classes mIoU [%] |", "|---|---|---|"]
    for name, pairs in results.items():
        old, new = zip(*pairs, strict=True)
        lines.append(f"| {name} | {cell(list(old))} | {cell(list(new))} |")
    return "\n".join(lines)


def main() -> None:
    """Run the contenders and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="test_resnet")
    parser.add_argument("--images", type=int, default=300)
    parser.add_argument("--test-images", type=int, default=100)
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--step-epochs", type=int, default=12)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--only", nargs="*", default=list(CONTENDERS), choices=list(CONTENDERS))
    parser.add_argument("--joint", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    results: dict[str, list[tuple[float, float]]] = {}
    for seed in range(arguments.seeds):
        for name, pair in one_seed(seed, arguments, arguments.only, print).items():
            results.setdefault(name, []).append(pair)
    print(table(results))
    if arguments.out is not None:
        write_json(arguments.out, results)


if __name__ == "__main__":
    main()
