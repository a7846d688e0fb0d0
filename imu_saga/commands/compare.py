"""`python -m imu_saga compare`."""

import sys
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from imu_saga.benchmark.noise import differences_from
from imu_saga.benchmark.pretraining_rows import ProtocolConfig, run_protocol, table
from imu_saga.benchmark.sides import load_sides
from imu_saga.benchmark.table import difference_text
from imu_saga.commands.pretrain import TRAINING_OVERLAP
from imu_saga.finetune import FinetuneConfig
from imu_saga.pretrain import PretrainConfig
from imu_saga.search import SearchConfig
from imu_saga.source import DataOptions
from shared_peft.atomic import write_text
from shared_peft.command import Command
from shared_peft.config import to_json
from shared_peft.errors import ConfigError
from shared_peft.training import RunFolder


@dataclass(frozen=True)
class CompareOptions:
    """Options of `python -m imu_saga compare`."""

    source: DataOptions = field(default_factory=lambda: DataOptions(data="sisfall", overlap=TRAINING_OVERLAP))
    shots: tuple[int, ...] = (10, 50)
    """Labelled windows per class."""
    seeds: int = 5
    """Label draws; each also seeds fine-tuning."""
    encoder: str = "saga"
    """Encoder: saga, resnet1d, gru or limu."""
    steps: int = 2000
    """Pre-training steps."""
    finetune_steps: int = 300
    """Fine-tuning steps."""
    r: int | None = None
    """Rank of adapters; the method's own if not given."""
    statistics: bool = True
    """Let heads see the window's statistics beside the tokens."""
    trials: int = 16
    """Trials of the weight search."""
    starts: tuple[str, ...] = ("span", "rebuild", "equal", "searched")
    """Ways to pre-train: span (LIMU-BERT's), rebuild, equal, "only LEVEL", "without LEVEL", searched."""
    methods: tuple[str, ...] = ("discriminant", "full")
    """Fine-tuning methods tried from every start: discriminant, full, head, lora, lora_tsd, flora, ..."""
    published: Path | None = None
    """Weight file of LIMU-BERT to start from, too; needs 120 samples at 20 Hz."""
    baselines: tuple[str, ...] = ("majority", "random_forest", "linear_discriminant", "scratch")
    """Rows that start from nothing: baselines, and scratch."""
    reference: str = "random_forest"
    """Row that the others' paired differences are taken from; the best one where it is not among the rows."""
    out: Path = Path("runs/imu_compare")
    """Folder to write."""
    resume: bool = False
    """Go on with the comparison in --out."""


def run(options: CompareOptions) -> None:
    """Run every row and print the table."""
    config = ProtocolConfig(
        shots=options.shots,
        seeds=options.seeds,
        pretraining=PretrainConfig(encoder=options.encoder, steps=options.steps),
        finetuning=FinetuneConfig(r=options.r, steps=options.finetune_steps, statistics=options.statistics),
        search=SearchConfig(trials=options.trials),
        starts=options.starts,
        methods=options.methods,
        published=options.published,
        baselines=options.baselines,
    )
    described = {key: value for key, value in to_json(options).items() if key not in ("out", "resume")}
    described["protocol"] = to_json(config)  # defaults included, so that a resumed table never mixes two recipes
    folder = RunFolder.create(options.out, "imu_saga.compare", described, resume=options.resume)
    with folder.locked():
        sides = load_sides(options.source)
        if not 0 <= options.source.fold < len(sides):
            raise ConfigError("--fold", f"must be in [0, {len(sides)})", options.source.fold, "Choose another")
        records = run_protocol(sides[options.source.fold], config, folder, tell=_say)
    reference = options.reference if options.reference in {record["row"] for record in records} else None
    differences = differences_from(records, np.random.default_rng(0), reference=reference)
    text = f"{table(records)}\n\n{difference_text(differences)}\n"
    write_text(options.out / "table.md", text)
    sys.stdout.write(f"\n{text}{options.out}\n")


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


COMMAND = Command(
    name="compare",
    config=CompareOptions,
    run=run,
    summary="Compare ways to pre-train and to fine-tune with classical methods, on the same people and labels.",
    example="python -m imu_saga compare --data sisfall --root FOLDER --out runs/compare",
    place=50,
)
