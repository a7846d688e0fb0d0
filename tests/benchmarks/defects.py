"""Defects of adapter libraries, measured: a table of Hugging Face peft, LyCORIS and this library.

Run: python -m tests.benchmarks.defects
It fails if ours has one of these defects.
"""

import math
import sys
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tests.benchmarks.defect_cases import DEFECTS, Defect
from tests.benchmarks.defect_libraries import HuggingFace, Library, Lycoris, NotAdaptedError, NotOfferedError, Ours

SHOWN = 70  # characters of an error


@dataclass(frozen=True)
class Cell:
    """A library's result: what to show, and whether it is right."""

    text: str
    right: bool


def cell(defect: Defect, library: Library) -> Cell:
    """Measure one defect in one library."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            measured = defect.measure(library)
        except NotAdaptedError:
            return Cell("not adapted", right=False)
        except NotOfferedError:
            return Cell("-", right=False)
        except Exception as error:
            if defect.refusal:
                return Cell(f"refused: {type(error).__name__}", right=True)
            message = " ".join(str(error).split()).replace("|", "/")
            shown = message if len(message) <= SHOWN else f"{message[:SHOWN].rstrip()} ..."
            return Cell(f"error: {shown}", right=False)
    right = measured.value <= defect.bound and math.isfinite(measured.value) and not defect.refusal
    text = measured.text or f"{measured.value:.2g}"
    return Cell(text if right else f"**{text}**", right)


def rows(libraries: Sequence[Library]) -> Iterator[tuple[str, list[Cell]]]:
    """Measure every defect in every library."""
    for name, defect in DEFECTS.items():
        yield name, [cell(defect, library) for library in libraries]


def main() -> int:
    """Print the table; return 1 if ours has a defect."""
    libraries = [HuggingFace(), Lycoris(), Ours()]
    print(f"| what is measured | {' | '.join(library.title for library in libraries)} |\n|---|---|---|---|")
    failed = []
    for name, cells in rows(libraries):
        print(f"| {name} | {' | '.join(c.text for c in cells)} |", flush=True)
        failed += [] if cells[-1].right else [name]
    for name in failed:
        print(f"ours fails: {name}", file=sys.stderr)
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
