"""A csv file that lists images: path, label, and perhaps the side each belongs to."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from shared_peft.errors import DataError
from vision.datasets.decode import read_image
from vision.datasets.labelled import DATASETS, ImageData, ImageSource, LabelledImages, class_indices
from vision.datasets.sampling import set_aside

SEPARATOR = "|"
SIDES = {"train": "train", "test": "test", "val": "val", "valid": "val", "validation": "val"}


@dataclass(frozen=True)
class _Line:
    file: Path
    labels: tuple[str, ...]
    side: str


def load_table(argument: str) -> ImageData:
    """List the images of a csv file with the columns ``path``, ``label`` and perhaps ``split``.

    Paths are relative to the csv file and stay within its folder. Where any label holds "|" (``cat|dog``) an image may
    have several labels, and an empty label is an image of none. ``split`` is train, test or val; the test side is
    test, or val where there is no test. Without the column a fifth of every class is set aside, always the same.

    Args:
        argument: the csv file.

    Returns:
        The training and the test side; nothing is decoded yet.

    Raises:
        DataError: no such file, no csv, a missing column, or a line that breaks a rule above, named by its number.
    """
    path = Path(argument)
    lines = _read_lines(path)
    several = any(len(line.labels) > 1 for line in lines)
    for number, line in enumerate(lines, start=2):
        if not line.labels and not several:
            fix = 'Give each image a label; one of none needs a file with "|" labels'
            raise DataError(f"{path}, line {number}", "label must not be empty", "nothing", fix)
    classes = tuple(sorted({label for line in lines for label in line.labels}))
    sides = {line.side for line in lines}
    if not sides - {""}:
        return set_aside(path.stem, _images(lines, classes, several=several))
    test_side = "test" if "test" in sides else "val"
    if not {"train", test_side} <= sides:
        fix = "Mark images of both, or leave the column out to have them split"
        raise DataError(path, "split must name train and test (or val)", ", ".join(sorted(sides)), fix)
    train, test = ([line for line in lines if line.side == side] for side in ("train", test_side))
    return ImageData(path.stem, *(_images(side, classes, several=several) for side in (train, test)))


def _images(lines: Sequence[_Line], classes: tuple[str, ...], *, several: bool) -> LabelledImages:
    index = class_indices(classes)
    files = [line.file for line in lines]
    if several:
        labels = torch.zeros(len(lines), len(classes))
        for row, line in enumerate(lines):
            labels[row, [index[label] for label in line.labels]] = 1
    else:
        labels = torch.tensor([index[line.labels[0]] for line in lines])
    return LabelledImages(tuple(map(str, files)), labels, classes, lambda row: read_image(files[row]))


def _read_lines(path: Path) -> list[_Line]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream, strict=True)
            columns = tuple(reader.fieldnames or ())
            if not {"path", "label"} <= set(columns):
                fix = "Name the columns in the first line"
                raise DataError(
                    path, "columns must be path, label and perhaps split", ", ".join(columns) or "none", fix
                )
            folder = path.parent.resolve()
            lines = [_line(row, f"{path}, line {number}", folder) for number, row in enumerate(reader, start=2)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        got = "no such file" if isinstance(error, FileNotFoundError) else f"{type(error).__name__}: {error}"
        raise DataError(path, "must be a csv file in UTF-8", got, "Check the path and the file") from error
    if not lines:
        raise DataError(path, "must list images", "no lines", "Add a line per image")
    return lines


def _line(row: dict[str | None, str | None], where: str, folder: Path) -> _Line:
    """Check one line; ``row`` has None for a value that is missing, and a key None for values too many."""
    if None in row or None in row.values():
        raise DataError(where, "must have a value for every column, and no more", "another number", "Correct the line")
    name, label = (row[column] or "" for column in ("path", "label"))
    file = folder / name.strip()
    if not name.strip() or "\0" in name or not file.resolve().is_relative_to(folder):
        fix = "Put the images beside the csv file, or below"
        raise DataError(where, "path must stay within the folder of the csv file", repr(name), fix)
    side = (row.get("split") or "").strip().lower()
    if "split" in row and side not in SIDES:
        raise DataError(where, f"split must be one of {', '.join(SIDES)}", repr(side), "Correct the line")
    labels = dict.fromkeys(part.strip() for part in label.split(SEPARATOR))
    return _Line(file, tuple(part for part in labels if part), SIDES.get(side, ""))


DATASETS.register("csv")(
    ImageSource(
        "a csv file with the columns path, label (several joined by | make it multi-label) and perhaps split",
        "FILE",
        load_table,
        lambda path: path.suffix.lower() == ".csv",
    )
)
