"""`python -m deploy`: export and check bundles."""

import sys

from deploy.commands import COMMANDS
from shared_peft.command import run_commands

if __name__ == "__main__":
    sys.exit(run_commands("deploy", COMMANDS))
