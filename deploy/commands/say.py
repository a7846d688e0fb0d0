"""One line to the terminal, at once."""

import sys


def say(line: str) -> None:
    """Write ``line`` to standard output and flush."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
