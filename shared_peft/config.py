"""Frozen dataclasses to JSON and back; an unknown key or a wrong type is an error that lists the fields."""

import dataclasses
import json
import math
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

from shared_peft.errors import ConfigError

C = TypeVar("C")
LARGEST_JSON = 16 << 20  # bytes
_SCALARS = (str, bool, int, float, Path)


def to_json(config: Any) -> dict[str, Any]:
    """Return a dataclass instance as plain JSON values (paths as POSIX strings, tuples as lists)."""
    return {field.name: _plain(getattr(config, field.name)) for field in dataclasses.fields(config)}


def from_json(cls: type[C], values: Mapping[str, Any], where: str = "") -> C:
    """Build a dataclass from plain JSON values, checking every key and type.

    Args:
        cls: the dataclass to build.
        values: plain values by field name; fields with defaults may be absent.
        where: name of the file or flag the values come from, for the error message.

    Returns:
        An instance of ``cls``.

    Raises:
        ConfigError: an unknown or missing key, or a value of another type.
    """
    where = where or cls.__name__
    fields = {field.name: field for field in dataclasses.fields(cls) if field.init}  # type: ignore[arg-type]
    for key in values:
        if key not in fields:
            must = f"key must be one of {', '.join(sorted(fields))}"
            raise ConfigError(where, must, repr(key), "Remove or correct the key")
    for name, field in fields.items():
        optional = field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING
        if name not in values and not optional:
            raise ConfigError(where, f"key {name!r} must be given", "nothing", "Add it")
    hints = typing.get_type_hints(cls)
    return cls(**{key: _typed(value, hints[key], f"{where}.{key}") for key, value in values.items()})


def read_json(path: Path, *, finite: bool = False, largest: int = LARGEST_JSON) -> Any:
    """Return what a JSON file holds; see `loads_json`.

    Args:
        path: an existing file.
        finite: refuse NaN and infinite numbers, too.
        largest: most bytes the file may have; what they stand for takes up to 25 times as much memory.

    Raises:
        ConfigError: too large, no text, no JSON, or a key given twice.
    """
    size = path.stat().st_size
    if size > largest:
        raise ConfigError(path, f"must be at most {largest >> 20} MiB", f"{size} bytes", "Replace the file")
    return loads_json(path.read_bytes(), str(path), finite=finite)


def loads_json(text: str | bytes, where: str, *, finite: bool = False) -> Any:
    """Parse JSON text; a syntax error, or a key given twice in one object, is a ConfigError that names ``where``.

    With ``finite``, so is a number that is not finite.
    """

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for key, value in pairs:
            if key in values:
                raise ConfigError(where, "each key must be given once", repr(key), "Remove all but one")
            values[key] = value
        return values

    def number(text: str) -> float:
        if finite and not math.isfinite(float(text)):
            raise ValueError(f"numbers must be finite, not {text}")
        return float(text)

    try:
        return json.loads(text, parse_float=number, parse_constant=number, object_pairs_hook=once)
    except (ValueError, RecursionError) as error:  # no JSON, no text, or a number of thousands of digits
        raise ConfigError(where, "must be JSON", str(error), "Repair or replace the file") from error


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return to_json(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (set, frozenset)):
        return sorted(_plain(item) for item in value)
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value.as_posix() if isinstance(value, Path) else value


def _typed(value: Any, hint: Any, where: str) -> Any:
    """Return ``value`` converted to the annotated type ``hint``, or raise ConfigError."""
    origin, args = get_origin(hint), get_args(hint)
    if hint is Any:
        return value
    if origin in (Union, types.UnionType):
        return _one_of(value, args, where)
    if origin is Literal:
        if value not in args:
            raise _wrong(where, f"one of {', '.join(map(repr, args))}", value)
        return value
    if origin in (list, tuple, set, frozenset):
        return _sequence(value, origin, args, where)
    if origin in (dict, Mapping) or hint in (dict, Mapping):
        if not isinstance(value, Mapping):
            raise _wrong(where, "an object", value)
        key_hint, item_hint = args or (str, Any)
        return {_typed(key, key_hint, where): _typed(item, item_hint, f"{where}.{key}") for key, item in value.items()}
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        if isinstance(value, hint):
            return value
        if not isinstance(value, Mapping):
            raise _wrong(where, "an object", value)
        return from_json(hint, value, where)
    return _scalar(value, hint, where)


def _one_of(value: Any, hints: tuple[Any, ...], where: str) -> Any:
    for hint in hints:
        if hint is type(None):
            if value is None:
                return None
            continue
        try:
            return _typed(value, hint, where)
        except ConfigError as error:
            if dataclasses.is_dataclass(hint) and isinstance(value, Mapping):
                raise error from None
    raise _wrong(where, " or ".join(_name(hint) for hint in hints), value)


def _sequence(value: Any, origin: Any, args: tuple[Any, ...], where: str) -> Any:
    if not isinstance(value, (list, tuple, set, frozenset)):
        raise _wrong(where, "a list", value)
    fixed = origin is tuple and args and args[-1] is not Ellipsis
    if fixed and len(value) != len(args):
        raise _wrong(where, f"a list of {len(args)}", value)
    hints = args if fixed else (args[:1] or (Any,)) * len(value)
    return origin(_typed(item, hint, f"{where}[{i}]") for i, (item, hint) in enumerate(zip(value, hints, strict=True)))


def _scalar(value: Any, hint: Any, where: str) -> Any:
    if hint is Path and isinstance(value, (str, Path)):
        return Path(value)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError as error:
            raise _wrong(where, "a number that float can hold", f"one of {value.bit_length()} bits") from error
    if hint in _SCALARS and (not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool)):
        raise _wrong(where, _name(hint), value)
    return value


def _name(hint: Any) -> str:
    return "null" if hint is type(None) else getattr(hint, "__name__", str(hint))


def _wrong(where: str, what: str, value: Any) -> ConfigError:
    return ConfigError(where, f"must be {what}", f"{value!r} ({type(value).__name__})", "Correct the value")
