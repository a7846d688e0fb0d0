"""The search: trials planned by what is believed, until all are done or the rest is not worth its time.

What trial n tries is a function of the trials up to n - workers; those between are believed to score what is expected.
So the same trials come whatever the order they end in, and whatever dies on the way. Each has a seed of its own: with a
shared one, weights tried again would score the same again, and noise would pass for knowledge.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from functools import partial
from math import ceil
from pathlib import Path
from typing import Any

from imu_saga.masking_level import MASKING_LEVELS
from imu_saga.pretrain import EQUAL_WEIGHTS, PretrainConfig
from imu_saga.search.config import SearchConfig
from imu_saga.search.executors import Here
from imu_saga.search.labels import label_folds
from imu_saga.search.ledger import Ledger, Plan, Trial
from imu_saga.search.suggestion import initial_design, suggest
from imu_saga.search.surrogate import Surrogate
from imu_saga.search.trial import TrialOutcome, TrialTask, run_trial, share_windows
from imu_saga.search.verdict import Gain
from imu_saga.search.warm_start import KnownTrial
from imu_saga.windows import WindowSet
from shared_peft.training import RunFolder

DATA_FILE, BEST_FILE = "windows.npz", "best.json"
PROMISING = 1 / 3  # ours: the share of the trials that go on at the larger fraction


@dataclass(frozen=True)
class SearchResult:
    """What a search found.

    Args:
        weights: the weights to use: those believed best if their gain over equal weights is beyond noise, else equal.
        trials: every trial with weights, fraction, seed, score and belief.
        gain: expected gain over equal weights.
        surrogate: the belief after all trials; its ``noise`` is the deviation between seeds.
        stopped: why the search ended before its last trial; empty if it did not.
    """

    weights: dict[str, float]
    trials: list[Trial]
    gain: Gain
    surrogate: Surrogate = field(repr=False)
    stopped: str = ""

    @property
    def believed_best(self) -> dict[str, float]:
        """The weights believed best, whether or not beyond noise."""
        return dict(max(self.trials, key=lambda trial: trial["belief"])["weights"])


def search(
    windows: WindowSet,
    checkpoint: Path,
    pretraining: PretrainConfig,
    config: SearchConfig,
    folder: RunFolder,
    *,
    executor: Executor | None = None,
    workers: int = 1,
    known: Sequence[KnownTrial] = (),
    tell: Callable[[Trial], object] = lambda trial: None,
) -> SearchResult:
    """Search the loss weights; finished trials in ``folder`` are not repeated.

    Args:
        windows: training windows, never those of test subjects.
        checkpoint: run folder of the equal-weight pre-training.
        pretraining: its configuration.
        config: see SearchConfig.
        folder: where trials are stored.
        executor: runs trials, local or on a cluster (see `open_executor`); None runs them one after the other here.
        workers: trials under way at once.
        known: trials of another search to start from.
        tell: called with every finished trial.

    Returns:
        The weights to pre-train with, and all that is known about them.
    """
    place = folder.path.absolute()
    share_windows(windows, label_folds(windows, config.shots, config.seed), config, place / DATA_FILE)
    run = partial(run_plan, run_trial, place, checkpoint.absolute(), pretraining, config)
    keep = config.continued is not None
    ledger = Ledger(folder, MASKING_LEVELS.names(), executor or Here(), run, tell, keep=keep)
    stopped = _short_trials(config, ledger, max(1, workers), known)
    for plan in _promising(config, ledger, known):
        ledger.start(plan)
    ledger.finish()
    ledger.clear()
    (place / DATA_FILE).unlink()
    return _concluded(config, ledger, known, stopped)


def run_plan(
    run: Callable[[TrialTask], TrialOutcome],
    place: Path,
    checkpoint: Path,
    pretraining: PretrainConfig,
    config: SearchConfig,
    plan: Plan,
) -> TrialOutcome:
    """Run a planned trial in the search's folder ``place``, in whatever process this is called."""
    weights = dict(zip(MASKING_LEVELS.names(), plan.weights, strict=True))
    scratch = place / plan.folder
    return run(
        TrialTask(place / DATA_FILE, weights, plan.seed, plan.fractions, checkpoint, pretraining, config, scratch)
    )


def surrogate_of(
    trials: Sequence[Trial], levels: Sequence[str], target: float, fallback: float, known: Sequence[KnownTrial] = ()
) -> Surrogate:
    """Return the belief after trials: those at the target fraction are the target, every other source has its own.

    Args:
        trials: finished trials.
        levels: names of the weights.
        target: fraction whose scores are what is searched.
        fallback: fraction of trials that do not say theirs.
        known: trials of other searches.
    """
    own = [f"at {trial.get('fraction', fallback)}" for trial in trials]
    names = list(dict.fromkeys([f"at {target}", *own, *(trial.source for trial in known)]))
    return Surrogate(
        [*([trial["weights"][level] for level in levels] for trial in trials), *(trial.weights for trial in known)],
        [*(trial["score"] for trial in trials), *(trial.score for trial in known)],
        [names.index(source) for source in [*own, *(trial.source for trial in known)]],
        size=len(levels),
    )


def _short_trials(config: SearchConfig, ledger: Ledger, workers: int, known: Sequence[KnownTrial]) -> str:
    """Run the trials of the first fraction; return why they ended before their number, or an empty text."""
    design = initial_design(len(ledger.levels), corners=not known)
    for number in range(config.trials):
        before = ledger.finish(number - workers)
        if ledger.stored(number):
            continue
        if number < len(design):
            weights = design[number]
        else:
            belief = surrogate_of(before, ledger.levels, config.fraction, config.fraction, known)
            weights, gain = suggest(belief, config.seed + number, ledger.pending(number - workers))
            left = config.trials - number
            least = belief.noise if config.least_gain is None else config.least_gain
            if left * gain < least:
                return f"{left} trials left were expected to gain {left * gain:.4f} at most, below {least:.4f}"
        ledger.start(Plan(number, tuple(weights), config.seed + number, (config.fraction,)))
    return ""


def _promising(config: SearchConfig, ledger: Ledger, known: Sequence[KnownTrial]) -> list[Plan]:
    """Return the trials to go on with: the share believed best, of each weighting one, and equal weights."""
    short = [trial for trial in ledger.finish() if trial["number"] < config.trials]
    if config.continued is None:
        return []
    belief = surrogate_of(short, ledger.levels, config.fraction, config.fraction, known)
    means = belief.predict([ledger.weights_of(trial) for trial in short])[0]
    first: dict[tuple[float, ...], tuple[float, Trial]] = {}
    for mean, trial in zip(means.tolist(), short, strict=True):
        first.setdefault(ledger.weights_of(trial), (mean, trial))
    ordered = sorted(first.values(), key=lambda pair: -pair[0])
    count = ceil(PROMISING * len(short))
    equal = tuple(1 / len(ledger.levels) for _ in ledger.levels)
    chosen = [trial for _, trial in ordered[:count]]
    chosen += [trial for _, trial in ordered[count:] if ledger.weights_of(trial) == equal]
    plans = [
        Plan(config.trials + place, ledger.weights_of(trial), trial["seed"], config.fractions, trial["number"])
        for place, trial in enumerate(chosen)
    ]
    return [plan for plan in plans if not ledger.stored(plan.number)]


def _concluded(config: SearchConfig, ledger: Ledger, known: Sequence[KnownTrial], stopped: str) -> SearchResult:
    """Believe, choose and write best.json."""
    trials, target = ledger.trials, config.fractions[-1]
    belief = surrogate_of(trials, ledger.levels, target, config.fraction, known)
    means, deviations = belief.predict([ledger.weights_of(trial) for trial in trials])
    for trial, mean, deviation in zip(trials, means.tolist(), deviations.tolist(), strict=True):
        trial["belief"], trial["belief_deviation"] = mean, deviation
    best = trials[int(means.argmax())]
    gain = Gain(*belief.gain(ledger.weights_of(best), [EQUAL_WEIGHTS[level] for level in ledger.levels]))
    weights = dict(best["weights"] if gain.certain else EQUAL_WEIGHTS)
    found: dict[str, Any] = {
        "weights": weights,
        "believed_best": best["weights"],
        "belief": best["belief"],
        "belief_deviation": best["belief_deviation"],
        "equal": EQUAL_WEIGHTS,
        "gain_over_equal": gain.as_json(),
        "verdict": str(gain),
        "noise_between_seeds": belief.noise,
        "compared_at_fraction": target,
        "stopped": stopped,
    }
    ledger.folder.write(BEST_FILE, found)
    return SearchResult(weights, trials, gain, belief, stopped)
