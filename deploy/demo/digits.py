"""The vision half of the demo: small networks learn five digits, adapters teach them the other five."""

from pathlib import Path

from deploy.demo.figures import confusion_matrices
from deploy.demo.report import Chapter
from deploy.demo.tables import Table
from vision.finetune import FinetuneConfig, finetune
from vision.pretrain import PretrainConfig, pretrain

FIRST_HALF, SECOND_HALF = tuple("01234"), tuple("56789")
SHOTS = 10
BACKBONES = {"small_vit": "small ViT", "small_conv": "small ConvNet"}
METHODS = {"probe": "linear probe", "flora": "FLoRA", "lora_tsd": "LoRA-TSD"}
ADAPTERS = {"probe": (), "flora": ("r=4",), "lora_tsd": ("r=2", "lora_alpha=4", "warmup_steps=30")}


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
        start = pretrain(PretrainConfig(backbone, "digits", upstream, classes=FIRST_HALF, seed=seed), progress=True)
        rows.append(_row(f"{words}, digits 0-4, all images", start.results))
        for method, name in METHODS.items():
            run = out / f"{backbone}_{method}"
            config = FinetuneConfig(
                backbone=backbone,
                data="digits",
                out=run,
                checkpoint=upstream,
                method=method,
                adapter=ADAPTERS[method],
                shots=SHOTS,
                classes=SECOND_HALF,
                augment="shift",
                seed=seed,
            )
            results = finetune(config, progress=True).results
            rows.append(_row(f"{words}, digits 5-9, {name}", results))
            matrices[f"{words}, {name}"] = results["confusion"]
            runs.append(run)
    table = Table(
        f"Digits 5 to 9 from {SHOTS} images per class",
        ("model", "accuracy", "macro-F1", "trained values"),
        rows,
        "Scores on the test images. The rows on digits 0-4 are the starting points, trained from scratch.",
    )
    text = (
        "Scikit-learn's 8 x 8 digits. Each network is trained on the digits 0 to 4 only; then it gets ten images of "
        "each of 5 to 9. The linear probe trains a new head; the adapters also move the frozen layers."
    )
    pictures = [
        confusion_matrices({k: v for k, v in matrices.items() if words in k}, SECOND_HALF)
        for words in BACKBONES.values()
    ]
    return Chapter("New digits from ten images", text, (table, *pictures)), runs


def _row(name: str, results: dict) -> tuple[str, ...]:
    parameters = results["parameters"]["trainable"]
    return name, f"{results['accuracy']:.3f}", f"{results['macro_f1']:.3f}", f"{parameters:,}"
