"""Scores of single cells, and the file they are kept in: written whole after each one, so that a kill loses nothing."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from imu_saga.windows import WindowSet
from shared_peft.atomic import write_text
from shared_peft.errors import RunError
from shared_peft.training import RunFolder, score_classification

RECORDS = "records.json"
Record = dict[str, Any]


@dataclass(frozen=True, order=True)
class Key:
    """What a record stands for: a row, a fold, the labelled windows per class (0 for all), a seed."""

    row: str
    fold: str
    shots: int
    seed: int


def score_cell(probabilities: np.ndarray, test: WindowSet) -> Record:
    """Score the answers to labelled test windows.

    Args:
        probabilities: shape (windows, classes).
        test: the windows, all labelled.

    Returns:
        classes, macro_f1, accuracy, per_class_f1, confusion (rows are true classes) and count; under "subjects" every
        subject's macro_f1, accuracy and confusion as [true, answered, windows] wherever there are any.
    """
    predicted, labels = torch.from_numpy(probabilities.argmax(axis=1)), torch.from_numpy(test.labels)
    subjects = {}
    for subject in np.unique(test.subjects):
        rows = torch.from_numpy(np.flatnonzero(test.subjects == subject))
        scored = score_classification(predicted[rows], labels[rows], len(test.classes))
        counts = [[i, j, n] for i, line in enumerate(scored.confusion) for j, n in enumerate(line) if n]
        subjects[str(subject)] = {"macro_f1": scored.macro_f1, "accuracy": scored.accuracy, "counts": counts}
    scored = score_classification(predicted, labels, len(test.classes))
    return {"classes": list(test.classes), **asdict(scored), "subjects": subjects}


def confusions_of_subjects(record: Record) -> np.ndarray:
    """Return every subject's confusion matrix, shape (subjects, classes, classes)."""
    found = np.zeros((len(record["subjects"]), len(record["classes"]), len(record["classes"])))
    for place, subject in enumerate(record["subjects"].values()):
        for true, answered, windows in subject["counts"]:
            found[place, true, answered] = windows
    return found


class Records:
    """The records of a folder, one line each in records.json.

    Args:
        folder: the benchmark's folder.

    Raises:
        RunError: a records.json that holds something else.
    """

    def __init__(self, folder: RunFolder) -> None:
        self._path = folder.path / RECORDS
        stored = folder.read(RECORDS) if self._path.exists() else []
        try:
            self._lines = {Key(**{name: record[name] for name in Key.__annotations__}): record for record in stored}
        except (TypeError, KeyError) as error:
            fix = "Remove it, or choose another --out"
            raise RunError(self._path, "must hold a list of records", repr(error), fix) from error
        self._text = {key: json.dumps(record) for key, record in self._lines.items()}

    def __contains__(self, key: Key) -> bool:
        return key in self._lines

    def __iter__(self) -> Iterator[Record]:
        return iter(self._lines.values())

    def add(self, key: Key, scores: Record) -> Record:
        """Keep the scores of a cell and write the file."""
        record = {**asdict(key), **scores}
        self._lines[key], self._text[key] = record, json.dumps(record)
        write_text(self._path, "[\n" + ",\n".join(self._text.values()) + "\n]\n")
        return record
