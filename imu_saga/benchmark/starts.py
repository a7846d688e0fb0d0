"""Where networks start: encoders pre-trained on each fold's training side, made when first asked for and kept."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from imu_saga.benchmark.recipes import EQUAL, SEARCHED, recipes
from imu_saga.benchmark.sides import Sides
from imu_saga.card import CARD
from imu_saga.evaluation.audit import ancestry, compare
from imu_saga.evaluation.footprint import TRAINED, side_of
from imu_saga.pretrain import PretrainConfig, pretrain
from imu_saga.search import SearchConfig, search
from shared_peft.config import to_json
from shared_peft.errors import DataError, UnknownNameError
from shared_peft.training import RunFolder


@dataclass(frozen=True, eq=False)
class Starts:
    """Pre-trained encoders below a folder, one for each name and fold; a killed pre-training is resumed.

    Args:
        root: folder to keep them in.
        pretraining: steps, encoder and learning rate; a recipe changes it.
        search: how searched weights are found.
        tell: called with one line for every trial of a search.
    """

    root: Path
    pretraining: PretrainConfig
    search: SearchConfig
    tell: Callable[[str], object] = lambda line: None

    def equal(self, sides: Sides) -> Path:
        """Return the run folder of the equal-weight pre-training on this fold."""
        return self.by_recipe(EQUAL, sides)

    def by_recipe(self, name: str, sides: Sides) -> Path:
        """Return the run folder of a recipe's pre-training on this fold; "searched" looks for its weights first.

        Raises:
            UnknownNameError: no such recipe.
        """
        if name == SEARCHED:
            return self.searched(sides)
        named = recipes()
        if name not in named:
            must = f"name must be one of {', '.join((*named, SEARCHED))}"
            raise UnknownNameError("pre-training recipe", must, repr(name), "Correct the name")
        return self._made(name, named[name](self.pretraining), sides)

    def _made(self, name: str, config: PretrainConfig, sides: Sides) -> Path:
        path = self.root / f"pretrain_{name.replace(' ', '_')}" / sides.name
        if not (path / CARD).exists():
            run = RunFolder.create(path, "imu_saga.pretrain", to_json(config), resume=True)
            pretrain(sides.unlabelled, config, run, resume=True, progress=f"pretrain {name}, fold {sides.name}")
        return path

    def searched(self, sides: Sides) -> Path:
        """Return the run folder of the pre-training with the weights searched on this fold's training side."""
        run = RunFolder.create(self.root / "search" / sides.name, "imu_saga.search", to_json(self.search), resume=True)
        found = search(
            sides.train,
            self.equal(sides),
            self.pretraining,
            self.search,
            run,
            tell=lambda trial: self.tell(f"trial {trial['number']}: {trial['score']:.3f}"),
        )
        return self._made(SEARCHED, replace(self.pretraining, weights=dict(found.weights)), sides)


def given_start(checkpoint: Path, *, users: bool = False) -> Callable[[Sides], Path]:
    """Return a function that gives one checkpoint for every fold, once it is checked against the fold's test side.

    What a published weight file was trained on is not recorded, and cannot be checked.

    Args:
        checkpoint: a pre-training run folder, or a weight file.
        users: the people are the classes, so that they may stand on both sides.
    """

    @cache
    def start(sides: Sides) -> Path:
        tested = side_of(sides.test)
        for run, footprint, _ in ancestry(checkpoint):
            trained = footprint.sides if footprint is not None else {}
            for name in (name for name in TRAINED if name in trained):
                for kind, shared, allowed in compare(tested, trained[name], users=users):
                    if shared and not allowed:
                        must = f"no {kind} that fold {sides.name} is tested on may have been trained on"
                        fix = "Leave --checkpoint out: an encoder is then pre-trained on each fold's training side"
                        raise DataError(run, must, f"{len(shared)} in both, {shared[0]} first", fix)
        return checkpoint

    return start
