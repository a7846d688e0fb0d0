"""Ways to pre-train, by name, so that each can be compared with the others on the same people."""

from collections.abc import Callable
from dataclasses import replace

from imu_saga.masking_level import MASKING_LEVELS
from imu_saga.pretrain import EQUAL_WEIGHTS, PretrainConfig

EQUAL, SEARCHED = "equal", "searched"
Recipe = Callable[[PretrainConfig], PretrainConfig]


def recipes() -> dict[str, Recipe]:
    """Return what each name changes of a configuration.

    "span" is LIMU-BERT's recipe (Xu et al. 2021) with the configuration's encoder: rebuild masked spans of samples, no
    augmentation. "rebuild" rebuilds what all levels hide; "only" and "without" one level keep the objective.
    """
    named: dict[str, Recipe] = {"span": _span, "rebuild": _rebuild, EQUAL: _weighted(EQUAL_WEIGHTS)}
    for level in MASKING_LEVELS.names():
        named[f"only {level}"] = _weighted({level: 1.0})
    for level in MASKING_LEVELS.names():
        named[f"without {level}"] = _weighted({name: w for name, w in EQUAL_WEIGHTS.items() if name != level})
    return named


def _weighted(weights: dict[str, float]) -> Recipe:
    return lambda config: replace(config, weights=dict(weights))


def _rebuild(config: PretrainConfig) -> PretrainConfig:
    return replace(config, weights=dict(EQUAL_WEIGHTS), objective="rebuild")


def _span(config: PretrainConfig) -> PretrainConfig:
    return replace(config, weights={"point": 1.0}, objective="rebuild", augment={})
