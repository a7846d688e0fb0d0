"""`python -m vision tsd`."""

from shared_peft.directions_command import tsd_command
from vision.trained import load_run

COMMAND = tsd_command("vision", load_run)
