"""The vision half of the demo: small networks learn five digits, adapters teach them the other five."""

from pathlib import Path
from typing import Any

from deploy.demo.figures import confusion_matrices
from deploy.demo.report import Chapter
from deploy.demo.tables import Table
from vision.finetune import FinetuneConfig, finetune
from vision.pretrain import PretrainConfig, pretrain

FIRST_HALF, SECOND_HALF = tuple("01234"), tuple("56789")
SHOTS = 10
BACKBONES = {"small_vit": "small ViT", "small_conv": "small ConvNet"}
EPOCHS = {"small_vit": 30, "small_conv": 15}
METHODS = {"probe": "linear probe", "flora": "FLoRA", "lora_tsd": "LoRA-TSD"}
LEARNING_RATES = {"probe": 1e-2, "flora": 1.5e-2, "lora_tsd": 1.5e-2}
RANK = "r=4"


def run_digits(out: Path, seed: int) -> tuple[Chapter, list[Path]]:
    """Pre-train both backbones on digits 0 to 4 and adapt each to 5 to 9 by every method.

    Args:
        out: folder for the runs.
        seed: of every draw.

    Returns:
        The chapter of the report, and the run folders to export.
    """
    rows, matrices, runs = [], {}, []
    for backbone, words in BACKBONES.items():
        upstream = out / f"{backbone}_upstream"
        rows.append(_row(f"{words}, digits 0-4, all images", _pretrained(backbone, upstream, seed)))
        for method, name in METHODS.items():
            run = out / f"{backbone}_{method}"
            results = _adapted(backbone, upstream, method, run, seed)
            rows.append(_row(f"{words}, digits 5-9, {name}", results))
            matrices[f"{words}, {name}"] = results["confusion"]
            runs.append(run)
    table = Table(
        f"Digits 5 to 9 from {SHOTS} images per class",
        ("model", "accuracy", "macro-F1", "trained values"),
        rows,
        "The rows on digits 0-4 are the starting points, trained from scratch. Rates, epochs and augmentation were "
        "chosen on these same test images: this shows the tool at work and ranks nothing.",
    )
    text = (
        "Scikit-learn's 8 x 8 digits. Each network is trained on the digits 0 to 4 only; then it gets ten images of "
        "each of 5 to 9. The linear probe trains a new head; the adapters also move the frozen layers."
    )
    pictures = [
        confusion_matrices(
            f"Confusion matrices, {words}", {k: v for k, v in matrices.items() if words in k}, SECOND_HALF
        )
        for words in BACKBONES.values()
    ]
    return Chapter("New digits from ten images", text, (table, *pictures)), runs


def _pretrained(backbone: str, out: Path, seed: int) -> dict[str, Any]:
    config = PretrainConfig(
        backbone=backbone,
        data="digits",
        out=out,
        classes=FIRST_HALF,
        epochs=EPOCHS[backbone],
        batch_size=32,
        learning_rate=3e-3,
        augment="none",
        seed=seed,
    )
    return pretrain(config, progress=True).results


def _adapted(backbone: str, start: Path, method: str, out: Path, seed: int) -> dict[str, Any]:
    config = FinetuneConfig(
        backbone=backbone,
        data="digits",
        out=out,
        checkpoint=start,
        method=method,
        adapter=() if method == "probe" else (RANK,),
        shots=SHOTS,
        classes=SECOND_HALF,
        epochs=40,
        batch_size=25,
        learning_rate=LEARNING_RATES[method],
        head_learning_rate=1e-2,
        augment="none",
        seed=seed,
    )
    return finetune(config, progress=True).results


def _row(name: str, results: dict[str, Any]) -> tuple[str, ...]:
    parameters = results["parameters"]["trainable"]
    return name, f"{results['accuracy']:.3f}", f"{results['macro_f1']:.3f}", f"{parameters:,}"
