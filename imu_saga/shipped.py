"""Checkpoints that come with the package, by name, so that a start needs no download."""

from pathlib import Path

FOLDER = Path(__file__).parent / "checkpoints"


def shipped_names() -> tuple[str, ...]:
    """Return the names of the checkpoints that come with the package."""
    return tuple(sorted(path.parent.name for path in FOLDER.glob("*/model.json")))


def checkpoint_path(checkpoint: Path | str) -> Path:
    """Return where a checkpoint lies: a path as it is, or the folder of a shipped one if its name is given."""
    path = Path(checkpoint)
    return FOLDER / path if str(path) in shipped_names() and not path.exists() else path
