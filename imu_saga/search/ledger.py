"""Trials planned, under way and finished; finished ones are stored as they end and never run again."""

import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from dataclasses import dataclass
from typing import Any

from imu_saga.search.trial import TrialOutcome
from imu_saga.search.warm_start import TRIALS_FILE
from shared_peft.training import RunFolder

Trial = dict[str, Any]


@dataclass(frozen=True)
class Plan:
    """A trial to run.

    Args:
        number: from 0.
        weights: in the order of the levels.
        seed: seed of masks, order and heads.
        fractions: parts of the pre-training after which a stage ends; the score is taken after the last.
        continues: number of the trial it goes on from.
    """

    number: int
    weights: tuple[float, ...]
    seed: int
    fractions: tuple[float, ...]
    continues: int | None = None

    @property
    def folder(self) -> str:
        """Name of the folder its weights lie in; a trial that goes on shares that of the one it continues."""
        return f"trial_{self.number if self.continues is None else self.continues:03d}"


class Ledger:
    """The trials of a search.

    Args:
        folder: where they are stored; what is stored there already is finished.
        levels: names of the weights.
        executor: runs trials.
        run: called in the executor with a plan; must be picklable where the executor leaves this process.
        tell: called with every trial that finishes.
        keep: whether the weights of finished trials are kept, to go on from.
    """

    def __init__(
        self,
        folder: RunFolder,
        levels: Sequence[str],
        executor: Executor,
        run: Callable[[Plan], TrialOutcome],
        tell: Callable[[Trial], object],
        *,
        keep: bool,
    ) -> None:
        self.folder, self.levels, self.executor, self.run, self.tell, self.keep = (
            folder,
            tuple(levels),
            executor,
            run,
            tell,
            keep,
        )
        stored = (folder.path / TRIALS_FILE).exists()
        self.trials: list[Trial] = folder.read(TRIALS_FILE) if stored else []
        self._under_way: dict[Future[TrialOutcome], Plan] = {}

    def stored(self, number: int) -> bool:
        """Tell whether trial ``number`` has finished."""
        return any(trial["number"] == number for trial in self.trials)

    def start(self, plan: Plan) -> None:
        """Give a trial to the executor."""
        self._under_way[self.executor.submit(self.run, plan)] = plan

    def finish(self, number: float = float("inf")) -> list[Trial]:
        """Wait for every trial up to ``number``; return those, in order, whatever else has finished meanwhile."""
        while any(plan.number <= number for plan in self._under_way.values()):
            done, _ = wait(self._under_way, return_when=FIRST_COMPLETED)
            for future in sorted(done, key=lambda each: self._under_way[each].number):
                self._store(self._under_way[future], future.result())
                del self._under_way[future]
        return [trial for trial in self.trials if trial["number"] <= number]

    def pending(self, after: int) -> list[tuple[float, ...]]:
        """Return the weights of trials numbered above ``after``, under way or finished, in order."""
        finished = {trial["number"]: self.weights_of(trial) for trial in self.trials}
        planned = {plan.number: plan.weights for plan in self._under_way.values()}
        return [weights for number, weights in sorted((finished | planned).items()) if number > after]

    def weights_of(self, trial: Trial) -> tuple[float, ...]:
        """Return a trial's weights in the order of the levels."""
        return tuple(trial["weights"][level] for level in self.levels)

    def clear(self) -> None:
        """Remove the weights of all trials."""
        for path in self.folder.path.glob("trial_*"):
            shutil.rmtree(path)

    def _store(self, plan: Plan, outcome: TrialOutcome) -> None:
        trial = {
            "number": plan.number,
            "weights": dict(zip(self.levels, plan.weights, strict=True)),
            "fraction": plan.fractions[-1],
            "seed": plan.seed,
            "continues": plan.continues,
            "score": outcome.score,
            "pretraining_s": round(outcome.pretraining_s, 3),
            "finetuning_s": round(outcome.finetuning_s, 3),
        }
        self.trials = sorted([*self.trials, trial], key=lambda each: each["number"])
        self.folder.write(TRIALS_FILE, self.trials)
        if not self.keep:
            shutil.rmtree(self.folder.path / plan.folder, ignore_errors=True)
        self.tell(trial)
