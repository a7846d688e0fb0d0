"""Named things, each registered by its own file: methods, backbones, data sets, masking levels, export targets."""

import importlib
import pkgutil
from collections.abc import Callable, Iterable, Iterator
from typing import Generic, TypeVar

from shared_peft.errors import UnknownNameError

T = TypeVar("T")


class Registry(Generic[T]):
    """An ordered mapping from names to things, filled by decorators.

    Args:
        kind: what is registered, in words, for error messages ("adapter method").

    Example:
        >>> shapes = Registry[type]("shape")
        >>> @shapes.register("square")
        ... class Square: ...
        >>> shapes.names()
        ('square',)
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._entries: dict[str, T] = {}

    def register(self, name: str) -> Callable[[T], T]:
        """Return a decorator that files its argument under ``name``; a taken name is an error."""
        if name in self._entries:
            raise UnknownNameError(self.kind, "a name can be registered once", repr(name), "Choose another name")

        def keep(entry: T) -> T:
            self._entries[name] = entry
            return entry

        return keep

    def get(self, name: str) -> T:
        """Return the entry called ``name``; raise UnknownNameError that lists the names otherwise."""
        if name not in self._entries:
            must = f"name must be one of {', '.join(sorted(self._entries))}"
            raise UnknownNameError(self.kind, must, repr(name), "Correct the name")
        return self._entries[name]

    def names(self) -> tuple[str, ...]:
        """Return the registered names, sorted."""
        return tuple(sorted(self._entries))

    def items(self) -> Iterator[tuple[str, T]]:
        """Iterate over (name, entry), sorted by name."""
        return ((name, self._entries[name]) for name in self.names())

    def __contains__(self, name: object) -> bool:
        return name in self._entries


def import_siblings(package: str, path: Iterable[str]) -> None:
    """Import every module of a package so that each registers itself.

    Args:
        package: the package's ``__name__``.
        path: the package's ``__path__``.
    """
    for module in pkgutil.iter_modules(path):
        if not module.name.startswith("_"):
            importlib.import_module(f"{package}.{module.name}")
