"""The model a run started from, exported as the run's bundle was: what an adapter costs is measured beside it."""

import copy
from dataclasses import replace
from pathlib import Path

from deploy.bundle import export_model
from deploy.layout import read_values
from deploy.preprocess import INSIDE, in_graph
from deploy.runs import load_trained
from deploy.variant import VariantOptions
from shared_peft import PeftModel
from shared_peft.errors import ExportError


def export_unadapted(run: Path, bundle: Path, out: Path) -> None:
    """Write a bundle of a run's model without its adapter, with the same preprocessing as the run's bundle.

    Args:
        run: the run the bundle was exported from.
        bundle: a verified bundle.
        out: folder to write.

    Raises:
        ExportError: the run has no adapter.
        RunError: no run there.
    """
    trained = load_trained(run)
    model = trained.model
    if not isinstance(model, PeftModel):
        must = "must have an adapter, or there is nothing to leave out"
        raise ExportError(run, must, type(model).__name__, "Use --beside with a bundle to compare with")
    plain = replace(trained, model=copy.deepcopy(model).unload().eval())
    steps = read_values(bundle)["preprocessing"]
    export_model(
        in_graph(plain, _units(steps)) if INSIDE in steps else plain, out, variants=VariantOptions(fixed=False)
    )


def _units(preprocessing: dict[str, object]) -> list[str]:
    """Return the sensors' units of a motion bundle as SENSOR=UNIT, none of another one."""
    names, units = (preprocessing.get(key) for key in ("channels", "units"))
    if not isinstance(names, list) or not isinstance(units, list):
        return []
    return [f"{name.rpartition('_')[0]}={unit}" for name, unit in zip(names, units, strict=True)]
