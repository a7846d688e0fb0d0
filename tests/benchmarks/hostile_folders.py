"""More hostile folders than the tests have time for: `python -m tests.benchmarks.hostile_folders --draws 100`.

Prints, for each kind of folder, how many were refused and how many read; anything else ends it with the case's name.
"""

import argparse
import tempfile
import warnings
from collections import Counter
from pathlib import Path

import torch

from tests.security.artefacts import ARTEFACTS
from tests.security.test_folders import attack, names_read


def main() -> None:
    """Draw, count and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=100, help="of each file")
    parser.add_argument("--first", type=int, default=0, help="number of the first draw")
    parser.add_argument("--kinds", nargs="*", default=list(ARTEFACTS), help=", ".join(ARTEFACTS))
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    print("| kind | files | hostile folders | refused | read | anything else |\n|---|---|---|---|---|---|", flush=True)
    for kind in options.kinds:
        found: Counter[str] = Counter()
        with tempfile.TemporaryDirectory() as scratch:
            sound = Path(scratch, "made", "sound")
            sound.parent.mkdir()
            ARTEFACTS[kind].make(sound)
            names = names_read(sound)
            for name in names:
                for draw in range(options.first, options.first + options.draws):
                    try:
                        found[attack(kind, sound, name, draw, Path(scratch))] += 1
                    except Exception as error:
                        raise AssertionError(f"{kind}, {name}, draw {draw}") from error
        print(f"| {kind} | {len(names)} | {found.total()} | {found['refused']} | {found['loaded']} | 0 |", flush=True)


if __name__ == "__main__":
    main()
