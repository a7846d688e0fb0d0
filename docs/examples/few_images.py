"""Few images: pre-train a small ConvNet on five digits, learn five others from a few images each, export the best way.

Run: python docs/examples/few_images.py --out runs/few_images
"""

import argparse
from pathlib import Path

from deploy import export_model
from deploy.runtime import BundleRunner
from vision.finetune import FinetuneConfig, finetune
from vision.pretrain import PretrainConfig, pretrain
from vision.trained import load_run

KNOWN, NEW = ("0", "1", "2", "3", "4"), ("5", "6", "7", "8", "9")


def main() -> None:
    """Fine-tune with three methods at equal shots and export the one that scores best."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/few_images"))
    parser.add_argument("--shots", type=int, default=20, help="training images a class")
    parser.add_argument("--epochs", type=int, default=30)
    arguments = parser.parse_args()

    start = arguments.out / "start"
    pretrain(PretrainConfig("small_conv", "digits", start, classes=KNOWN, epochs=arguments.epochs))

    accuracy = {}
    for method in ("probe", "lora", "flora"):
        config = FinetuneConfig(
            backbone="small_conv",
            checkpoint=start,
            data="digits",
            classes=NEW,
            shots=arguments.shots,
            epochs=arguments.epochs,
            method=method,
            out=arguments.out / method,
        )
        accuracy[method] = finetune(config).results["accuracy"]
        print(f"{method:6} {accuracy[method]:.3f}")

    best = max(accuracy, key=accuracy.__getitem__)
    export_model(load_run(arguments.out / best), arguments.out / "bundle")
    print(f"exported {best}: {BundleRunner(arguments.out / 'bundle').check_golden()}")


if __name__ == "__main__":
    main()
