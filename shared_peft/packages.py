"""Optional packages, imported when first needed; a missing one names the extra that brings it."""

import importlib
from types import ModuleType

from shared_peft.errors import MissingPackageError


def load_package(name: str, where: object, *, extra: str) -> ModuleType:
    """Import an optional package, or a module of one.

    Args:
        name: its import name.
        where: what needs it, for the error message.
        extra: the extra of this distribution that installs it.

    Returns:
        The imported module.

    Raises:
        MissingPackageError: it is not installed.

    Example:
        >>> load_package("json", "an example", extra="deploy").__name__
        'json'
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        must, got = f"needs the package {name.partition('.')[0]}", f"{type(error).__name__}: {error}"
        raise MissingPackageError(where, must, got, f'Run: pip install "saga-peft[{extra}]"') from error
