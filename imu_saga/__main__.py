"""The command line: python -m imu_saga COMMAND."""

import sys

from imu_saga.commands import COMMANDS
from shared_peft.command import run_commands

if __name__ == "__main__":
    sys.exit(run_commands("imu_saga", COMMANDS))
