"""Results of single trainings, kept as each one ends, so that a kill loses one training at most."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from shared_peft.errors import RunError
from shared_peft.training import RunFolder
from shared_peft.weights import read_tensors, write_tensors

CELLS, ANSWERS = "cells.json", "answers"
Cell = dict[str, Any]


class Cells:
    """The trainings of a comparison's folder: cells.json, and what each kept of its answers in answers/.

    Args:
        folder: the comparison's folder.
        total: how many trainings are asked for, for the progress bar.
        progress: show a progress bar.

    Raises:
        RunError: a cells.json that holds something else.
    """

    def __init__(self, folder: RunFolder, total: int, *, progress: bool) -> None:
        from shared_peft.progress import Bar  # noqa: PLC0415

        self._folder = folder
        self._done: dict[str, Cell] = folder.read(CELLS) if (folder.path / CELLS).exists() else {}
        if not isinstance(self._done, dict) or not all(isinstance(cell, dict) for cell in self._done.values()):
            fix = "Remove it, or choose another --out"
            raise RunError(folder.path / CELLS, "must hold the results of trainings", "something else", fix)
        self._bar = Bar(total=total, desc="compare", unit="training", dynamic_ncols=True, disable=not progress)

    def __enter__(self) -> "Cells":
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def pilot(self, key: str, run: Callable[[], Cell]) -> Cell:
        """Return the result kept under ``key``; run the training first if there is none."""
        if self._missing(key):
            self._keep(key, run())
        self._bar.update()
        return self._done[key]

    def answered(self, key: str, run: Callable[[], tuple[Cell, torch.Tensor]]) -> Cell:
        """Return the result kept under ``key``, the evidence of its answers kept beside it; train first if needed."""
        if self._missing(key) or not self._evidence(key).is_file():
            cell, evidence = run()
            write_tensors(self._evidence(key), {"evidence": evidence})
            self._keep(key, cell)
        self._bar.update()
        return self._done[key]

    def evidence(self, key: str, images: int) -> torch.Tensor:
        """Return what a finished training kept of its answers, shape (images, ...).

        Raises:
            RunError: answers to another number of images.
        """
        found = read_tensors(self._evidence(key))["evidence"]
        if len(found) != images:
            must = f"must hold answers to the {images} test images"
            raise RunError(self._evidence(key), must, len(found), "Choose another --out: the data have changed")
        return found

    def _missing(self, key: str) -> bool:
        self._bar.set_postfix_str(key)
        return key not in self._done

    def _keep(self, key: str, cell: Cell) -> None:
        self._done[key] = cell
        self._folder.write(CELLS, self._done)

    def _evidence(self, key: str) -> Path:
        return self._folder.path / ANSWERS / f"{key.replace('/', '-')}.safetensors"
