"""The README's tables, generated from the registries: `python -m tests.registry_tables` writes them."""

import inspect
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

README = Path(__file__).resolve().parents[1] / "README.md"
MARKS = "<!-- tables -->", "<!-- end of tables -->"


def registry_tables() -> str:
    """Return one Markdown table for each registry a user picks names from."""
    import imu_saga.augmentations
    import imu_saga.encoders
    import imu_saga.masking
    import imu_saga.protocols  # noqa: F401  (all register their members)
    import vision.augmentations  # noqa: F401
    from deploy.places import PLACES
    from deploy.snippets import SNIPPETS
    from deploy.target import EXPORT_TARGETS
    from deploy.variants import VARIANTS
    from imu_saga.augmentation import AUGMENTATIONS
    from imu_saga.baselines import BASELINES
    from imu_saga.datasets import DATASETS
    from imu_saga.encoder import ENCODERS
    from imu_saga.masking_level import MASKING_LEVELS
    from imu_saga.objectives import OBJECTIVES
    from imu_saga.partial_labels import PARTIAL_LABEL_METHODS
    from imu_saga.split_protocol import PROTOCOLS
    from imu_saga.streaming.smoothing import SMOOTHINGS
    from imu_saga.tasks import TASKS
    from shared_peft import LAYER_KINDS, METHODS
    from vision.augmentation import AUGMENTATIONS as IMAGE_AUGMENTATIONS
    from vision.backbones import BACKBONES
    from vision.datasets import DATASETS as IMAGE_DATASETS
    from vision.report.explanations import EXPLANATIONS

    tables = [
        _table(
            "Adapter methods",
            ("name", "what it is", "source"),
            [(n, _first(m) + _limits(m), m.citation) for n, m in METHODS.items()],
        ),
        _table("Layers adapters go to", ("name", "what it covers"), [(n, _first(k)) for n, k in LAYER_KINDS.items()]),
        _table("Backbone families", ("name", "what it builds"), [(n, f.summary) for n, f in BACKBONES.items()]),
        _table("Image data sets", ("name", "what it reads"), [(n, d.summary) for n, d in IMAGE_DATASETS.items()]),
        _table(
            "Image augmentations", ("name", "what it does"), [(n, _first(a)) for n, a in IMAGE_AUGMENTATIONS.items()]
        ),
        _table("Explanations", ("name", "what it shows"), [(n, _first(e)) for n, e in EXPLANATIONS.items()]),
        _table("IMU encoders", ("name", "what it is"), [(n, _first(e)) for n, e in ENCODERS.items()]),
        _table("Masking levels", ("name", "what it hides"), [(n, _first(m)) for n, m in MASKING_LEVELS.items()]),
        _table("Pre-training objectives", ("name", "what is learnt"), [(n, _first(o)) for n, o in OBJECTIVES.items()]),
        _table("IMU augmentations", ("name", "what it does"), [(n, _first(a)) for n, a in AUGMENTATIONS.items()]),
        _table("IMU tasks", ("name", "what is told apart"), [(n, t.summary) for n, t in TASKS.items()]),
        _table("Split protocols", ("name", "its folds"), [(n, _first(p)) for n, p in PROTOCOLS.items()]),
        _table(
            "Learning from candidate labels",
            ("name", "what it does"),
            [(n, _first(m)) for n, m in PARTIAL_LABEL_METHODS.items()],
        ),
        _table("Smoothing of answers", ("name", "what it does"), [(n, _first(s)) for n, s in SMOOTHINGS.items()]),
        _table("IMU data sets", ("name", "title", "licence"), [(n, d.title, d.licence) for n, d in DATASETS.items()]),
        _table("Classical baselines", ("name", "what it is"), [(n, _first(b)) for n, b in BASELINES.items()]),
        _table("Export targets", ("name", "what it writes"), [(n, _first(t)) for n, t in EXPORT_TARGETS.items()]),
        _table("Further files of a bundle", ("name", "what it is"), [(n, _first(v)) for n, v in VARIANTS.items()]),
        _table("Places to check a bundle on", ("name", "what runs there"), [(n, _first(p)) for n, p in PLACES.items()]),
        _table("Snippets for apps", ("name", "what it is"), [(n, _first(s)) for n, s in SNIPPETS.items()]),
    ]
    return "\n\n".join(tables)


def with_tables(text: str) -> str:
    """Return a README with the tables between its marks made anew."""
    pattern = re.compile(f"{re.escape(MARKS[0])}.*{re.escape(MARKS[1])}", re.DOTALL)
    return pattern.sub(lambda _: f"{MARKS[0]}\n\n{registry_tables()}\n\n{MARKS[1]}", text)


def _table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}"]
    bar = "\\|"  # a bar inside a cell
    lines += [f"| `{name}` | {' | '.join(cell.replace('|', bar) for cell in cells)} |" for name, *cells in rows]
    return f"**{title}**\n\n" + "\n".join(lines)


def _limits(method: Any) -> str:
    """Return what a method is labelled with: experimental, not mergeable, or nothing."""
    labels = [
        label
        for label, holds in (("experimental", method.experimental), ("cannot be merged", not method.mergeable))
        if holds
    ]
    return f" ({', '.join(labels)})" if labels else ""


def _first(entry: object) -> str:
    """Return the first sentence of a class's or an instance's description."""
    documented = entry if inspect.isclass(entry) else type(entry)
    text = " ".join((inspect.getdoc(documented) or "").split("\n\n")[0].split())
    return text.rstrip(".")


if __name__ == "__main__":
    README.write_text(with_tables(README.read_text(encoding="utf-8")), encoding="utf-8")
