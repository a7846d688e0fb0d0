"""`python -m imu_saga evaluate`."""

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from imu_saga.card import read_card
from imu_saga.commands.finetune import FinetuneOptions, drawn_sides
from imu_saga.commands.pretrain import stored_options
from imu_saga.commands.scores import scores_text
from imu_saga.evaluation.cross_data import check_never_trained, load_other
from imu_saga.evaluation.scores import check_apart, check_fits, full_scores, side_scores, spread_text
from imu_saga.evaluation.verification import verification_picture
from imu_saga.finetune import predict_probabilities
from imu_saga.trained import FINETUNE_KIND, load_run
from shared_peft.atomic import write_json
from shared_peft.command import Command
from shared_peft.config import from_json
from shared_peft.errors import ConfigError, DataError
from shared_peft.picture import new_figure, write_picture


@dataclass(frozen=True)
class EvaluateOptions:
    """Options of `python -m imu_saga evaluate`."""

    run: tyro.conf.Positional[Path]
    """A finished fine-tuning run."""
    data: str | tuple[str, ...] = ""
    """Another data set than the run's own, or several as NAME=FOLDER; all its people are then scored."""
    root: Path | None = None
    """Folder of the data set; by default the run's own."""
    data_options: tuple[str, ...] = ()
    """Options of the other data set as NAME=VALUE."""
    label_map: tuple[str, ...] = ()
    """Classes of the other data set as MODEL_CLASS=DATA_CLASS,DATA_CLASS; classes the model lacks are left out."""
    task: str = ""
    """The run's task: activity, placement or user; a run of another task is refused."""
    out: Path | None = None
    """JSON file to write the scores to."""
    picture: Path | None = None
    """PNG, SVG or PDF of false accepts and rejects over the threshold, for a run with impostors."""


def run(options: EvaluateOptions) -> None:
    """Score a run on what it held out, or on another data set."""
    made = from_json(FinetuneOptions, stored_options(options.run, FINETUNE_KIND), str(options.run))
    if options.task not in ("", made.source.task):
        raise ConfigError(
            "--task", f"must be {made.source.task}, the run's own", options.task, "Fine-tune for that task"
        )
    classes, scores = (score_other if options.data else score_own)(options, made)
    sys.stdout.write(scores_text(classes, scores) + spread_text(scores))
    if options.out is not None:
        write_json(options.out, scores)
    if options.picture is not None:
        if "verification" not in scores:
            fix = "Fine-tune with --task user --protocol-options impostor_fraction=0.25"
            raise ConfigError("--picture", "needs a run with impostors", "none", fix)
        figure = new_figure("evaluate", 12.0, 3.6)
        verification_picture(scores["verification"], figure)
        write_picture(options.picture, figure)


def score_own(options: EvaluateOptions, made: FinetuneOptions) -> tuple[tuple[str, ...], dict[str, Any]]:
    """Score on the people, sessions or windows the run held out.

    Raises:
        DataError: the data have changed since, so that the same split holds out something else.
    """
    trained = load_run(options.run)
    sides = drawn_sides(replace(made, source=replace(made.source, root=options.root or made.source.root)))
    loaded, test = sides.loaded, sides.test
    sys.stdout.write(f"{loaded}\n")
    check_fits(test, trained)
    before = trained.details.get("split", {}).get("held_out", trained.details["test_subjects"])
    if sorted(before) != sorted(loaded.split.held_out):
        got = f"another {loaded.split}"
        fix = "Give the data the run was made with, or name another data set with --data"
        raise DataError("evaluate", f"must hold out the {len(before)} {loaded.split.kind}s the run held out", got, fix)
    if "subject" in loaded.protocol.apart:
        check_apart(test, trained.details["train_subjects"])
    return trained.classes, side_scores(trained.model, sides.labelled, test, sides.impostors)


def score_other(options: EvaluateOptions, made: FinetuneOptions) -> tuple[tuple[str, ...], dict[str, Any]]:
    """Score on all people of another data set."""
    source = replace(
        made.source,
        data=options.data,
        root=options.root,
        data_options=options.data_options,
        label_map=options.label_map,
    )
    other = load_other(source, read_card(options.run))
    sys.stdout.write(f"{other}\n")
    for reason in check_never_trained(options.run, other.windows):
        sys.stdout.write(f"unknown, so its people may be among them: {reason}\n")
    trained = load_run(options.run, channels=other.windows.channels)
    answers = predict_probabilities(trained.model, other.windows.x).numpy().argmax(axis=1)
    compared = {
        "data": options.data,
        "subjects": np.unique(other.windows.subjects).tolist(),
        "channels": list(other.windows.channels),
        "missing_channels": list(other.missing),
        "left_out_classes": dict(other.left_out),
    }
    return trained.classes, {**full_scores(answers, other.windows), "compared": compared}


COMMAND = Command(
    name="evaluate",
    config=EvaluateOptions,
    run=run,
    summary="Score a run on its held-out people, or on another data set.",
    example="python -m imu_saga evaluate runs/finetune",
    place=33,
)
