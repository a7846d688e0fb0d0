"""The command line: python -m vision COMMAND."""

import sys

from shared_peft.command import run_commands
from vision.commands import COMMANDS

if __name__ == "__main__":
    sys.exit(run_commands("vision", COMMANDS))
