"""Split protocols: one file each, registered by itself."""

from imu_saga.split_protocol import PROTOCOLS, SplitProtocol, open_protocol
from shared_peft.registry import import_siblings

import_siblings(__name__, __path__)

__all__ = ["PROTOCOLS", "SplitProtocol", "open_protocol"]
