"""How a weight search is run; every constant is ours."""

from dataclasses import dataclass

from shared_peft.errors import ConfigError


@dataclass(frozen=True)
class SearchConfig:
    """How to search.

    Args:
        trials: largest number of weightings tried: corners, centre, the centre again with other seeds, suggestions.
        shots: label budget: labelled windows per class, validation included.
        fraction: a trial's pre-training steps as a part of the checkpoint's, in (0, 1].
        subset: part of the unlabelled windows a trial sees, in (0, 1].
        method: how a trial is fine-tuned; in closed form it costs next to nothing.
        finetune_steps: fine-tuning steps of a trial and fold, of methods that take steps.
        halvings: ways the labelled people are halved; a trial's score is the mean over them.
        from_checkpoint: whether trials go on from the equal-weight checkpoint instead of starting anew. On SisFall what
            a tenth of the steps gives anew ranks the weights as whole pre-trainings do; going on does not.
        learning_rate: peak learning rate where a trial goes on; one that starts anew has the pre-training's.
        seed: seed of draws and suggestions.
        continued: fraction up to which the promising third of the trials, and equal weights, go on when all have
            ended; they are then compared by the belief at this fraction. None lets none go on.
        least_gain: the search stops when all trials left are expected to gain less than this together [macro-F1];
            None takes the standard deviation between seeds, as the surrogate believes it; 0 never stops.
    """

    trials: int = 16
    shots: int = 10
    fraction: float = 0.1
    subset: float = 0.5
    method: str = "discriminant"
    finetune_steps: int = 60
    halvings: int = 8
    from_checkpoint: bool = False
    learning_rate: float = 5e-4
    seed: int = 0
    continued: float | None = None
    least_gain: float | None = None

    def __post_init__(self) -> None:
        if self.trials < 1:
            raise ConfigError("search trials", "must be at least 1", self.trials, "Use 16")
        if self.shots < 2:
            fix = "Use --shots 2 or more"
            raise ConfigError("search shots", "must leave labels to fit and to validate", self.shots, fix)
        if self.halvings < 1:
            raise ConfigError("search halvings", "must be at least 1", self.halvings, "Use 8")
        for name in ("fraction", "subset"):
            if not 0 < getattr(self, name) <= 1:
                raise ConfigError(f"search {name}", "must be in (0, 1]", getattr(self, name), "Use 0.1")
        if self.continued is not None and not self.fraction < self.continued <= 1:
            must = f"must be above the first fraction, {self.fraction:g}, and at most 1"
            raise ConfigError("search continued", must, self.continued, f"Use {min(1.0, 3 * self.fraction):g}")
        if self.least_gain is not None and not self.least_gain >= 0:
            raise ConfigError("search least gain", "must be 0 or more", self.least_gain, "Use 0 to never stop early")

    @property
    def fractions(self) -> tuple[float, ...]:
        """The fractions trials are scored at, rising."""
        return (self.fraction,) if self.continued is None else (self.fraction, self.continued)
