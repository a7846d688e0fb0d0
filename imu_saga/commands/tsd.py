"""`python -m imu_saga tsd`."""

from imu_saga.trained import load_run
from shared_peft.directions_command import tsd_command

COMMAND = tsd_command("imu_saga", load_run)
