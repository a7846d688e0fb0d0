"""Split protocols: one file each, registered by itself."""

from collections.abc import Mapping
from typing import Any

from imu_saga.split_protocol import PROTOCOLS, SplitProtocol
from shared_peft.config import from_json
from shared_peft.registry import import_siblings

import_siblings(__name__, __path__)

__all__ = ["PROTOCOLS", "SplitProtocol", "open_protocol"]


def open_protocol(name: str, options: Mapping[str, Any] | None = None) -> SplitProtocol:
    """Return the protocol called ``name`` with its options set.

    Args:
        name: a registered name.
        options: plain values by field name; absent ones keep their defaults.

    Raises:
        UnknownNameError: no such protocol.
        ConfigError: an unknown option or a value of another type.
    """
    return from_json(PROTOCOLS.get(name), options or {}, f"protocol {name}")
