"""A contender: a row of a comparison, and how its model begins; the training that follows is the same for all."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from shared_peft.errors import ConfigError
from vision.adapt import PLAIN_METHODS, Trainee, adapter_config
from vision.backbones import Backbone
from vision.comparison.rivals import RIVALS
from vision.fit import FitSettings, start

Begin = Callable[[Backbone, FitSettings, int], Trainee]


@dataclass(frozen=True)
class Contender:
    """A row of a comparison.

    Args:
        name: the row's name.
        settings: how it is trained; the seed is set by the cell.
        begin: (a fresh backbone, settings, number of training images) -> what is trained, as `vision.fit.start`.
        tuned_as: name of the row whose learning rate it takes; empty where it is tuned itself.
    """

    name: str
    settings: FitSettings
    begin: Begin = start
    tuned_as: str = ""

    def at_rate(self, rate: float) -> "Contender":
        """Return it with another learning rate."""
        return dataclasses.replace(self, settings=dataclasses.replace(self.settings, learning_rate=rate))


def contenders(methods: Sequence[str], against: Sequence[str], base: FitSettings, budget: int) -> list[Contender]:
    """Return the rows: a method each, and each rival right behind the method it stands beside.

    Args:
        methods: names of methods; only adapters get the adapter fields and the budget.
        against: names from RIVALS.
        base: what all rows share.
        budget: largest number of adapter parameters.

    Raises:
        UnknownNameError: no such rival.
        MissingPackageError: a rival's package is not installed.
        ConfigError: a rival without the method it stands beside.
    """
    rivals = {name: RIVALS.get(name) for name in against}
    for name, rival in rivals.items():
        rival.check()
        if rival.method not in methods:
            fix = f"Add {rival.method} to --methods"
            raise ConfigError(f"--against {name}", f"stands beside method {rival.method}", ",".join(methods), fix)
    rows = []
    for method in methods:
        changes: dict[str, Any] = {"adapter": {}} if method in PLAIN_METHODS else {"budget": budget}
        settings = dataclasses.replace(base, method=method, **changes)
        rows.append(Contender(method, settings))
        beside = [(name, rival) for name, rival in rivals.items() if rival.method == method]
        rows += [Contender(f"{name}-{method}", settings, rival.begin, method) for name, rival in beside]
    return rows


def lora_budget(backbone: Backbone, rank: int, fields: Mapping[str, Any]) -> int:
    """Return the adapter parameters of plain LoRA of ``rank``, the head not counted: what every adapter may have."""
    from shared_peft import count_parameters  # noqa: PLC0415

    targets = {"target_modules": fields.get("target_modules", "all")}
    return count_parameters(backbone.model, adapter_config(backbone, "lora", {**targets, "r": rank}))
