"""Motion sensors to a bundle: adapt the encoder that comes with the package to a few windows, export, run the bundle.

Run: python docs/examples/motion_to_bundle.py --out runs/motion
"""

import argparse
from pathlib import Path

from deploy import export_model
from deploy.runs import load_trained
from deploy.runtime import BundleRunner
from imu_saga.commands.finetune import FinetuneOptions, run
from imu_saga.source import DataOptions, load_split


def main() -> None:
    """Fine-tune on generated people, export, and let the bundle answer windows of people it never saw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/motion"))
    parser.add_argument("--data", default="synthetic", help="a registered data set")
    parser.add_argument("--root", type=Path, default=None, help="its folder")
    parser.add_argument("--steps", type=int, default=300)
    arguments = parser.parse_args()

    source = DataOptions(data=arguments.data, root=arguments.root)
    run(
        FinetuneOptions(
            source=source,
            checkpoint=Path("saga-small"),
            method="lora",
            shots=10,
            steps=arguments.steps,
            statistics=False,
            out=arguments.out / "run",
        )
    )
    export_model(load_trained(arguments.out / "run"), arguments.out / "bundle")

    runner = BundleRunner(arguments.out / "bundle")
    loaded = load_split(source)
    unseen = loaded.windows.subset(loaded.split.test)
    answers = runner.predict(unseen.x[:5])
    for answer, label in zip(answers, unseen.labels[:5], strict=True):
        print(f"{unseen.classes[label]:12} answered {answer.label} ({answer.probability:.2f})")


if __name__ == "__main__":
    main()
