"""Which column is what, guessed from the spellings common in logs of phones, watches and sensor boards."""

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from imu_saga.signal.units import GyroUnit

SENSOR_WORDS = {  # whole words, or beginnings of words
    "acc": ("acc", "gforce", "gf"),
    "gyro": ("gyr", "rot", "ang", "omega", "avel"),
    "mag": ("mag",),
}
SENSOR_LETTERS = {"a": "acc", "g": "gyro", "w": "gyro", "m": "mag"}  # as in ax, gx, wx, mx
NOT_MEASURED = ("linear", "user", "gravity", "grav", "lin", "bias", "temp")  # gravity taken out, or another quantity
TIME_NAMES = ("seconds_elapsed", "elapsed", "timestamp", "time", "t", "ts", "epoch", "datetime", "date", "logging")
TEXT_NAMES = {
    "label": ("label", "activity", "class", "target"),
    "subject": ("subject", "user", "participant", "person", "volunteer"),
    "session": ("session", "trial", "recording", "run", "execution"),
}
GYRO_UNITS: tuple[tuple[str, GyroUnit], ...] = (("rad", "rad/s"), ("deg", "deg/s"), ("°", "deg/s"), ("dps", "deg/s"))


def guess_columns(header: Sequence[str]) -> dict[str, Any]:
    """Guess the options of a table reader from its column names.

    Args:
        header: the column names, as in ax, accX, acc_x, accelerometer_x or "Acceleration x (m/s^2)".

    Returns:
        Options by name: acc and, where found, gyro, mag, time, label, subject, session and gyro_unit; gyro and time
        are None where nothing fits, and acc is absent.

    Example:
        >>> guess_columns(["t", "ax", "ay", "az", "activity"])
        {'acc': ['ax', 'ay', 'az'], 'gyro': None, 'time': 't', 'label': 'activity'}
    """
    triples = _triples(header)
    options: dict[str, Any] = {sensor: triples[sensor] for sensor in ("acc", "gyro", "mag") if sensor in triples}
    taken = {name for triple in options.values() for name in triple}
    rest = [name for name in header if name not in taken]
    options.setdefault("gyro", None)
    options["time"] = _first(rest, TIME_NAMES)
    for option, words in TEXT_NAMES.items():
        found = _first([name for name in rest if _axis_and_stem(name)[0] == "" and name != options["time"]], words)
        if found is not None:
            options[option] = found
    unit = next((unit for sign, unit in GYRO_UNITS if sign in "".join(options["gyro"] or ()).lower()), None)
    return options | ({"gyro_unit": unit} if unit is not None else {})


def as_flag(options: Mapping[str, Any]) -> str:
    """Return options as typed on a command line: ``--columns time=t acc=ax,ay,az ...``."""
    return " ".join(["--columns", *(shlex.quote(f"{name}={_typed(value)}") for name, value in options.items())])


def _typed(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        plain = all(not re.search(r"[,\[\]{}\"]", str(item)) for item in value)
        return ",".join(map(str, value)) if plain else json.dumps(list(value), ensure_ascii=False)
    return value if isinstance(value, str) else json.dumps(value)


def _triples(header: Sequence[str]) -> dict[str, list[str]]:
    """Return the first complete x, y, z of every sensor; bare x, y, z count as an accelerometer."""
    found: dict[tuple[str, str], dict[str, str]] = {}
    for name in header:
        axis, stem = _axis_and_stem(name)
        sensor = _sensor(stem)
        if axis and sensor:
            found.setdefault((sensor, stem), {}).setdefault(axis, name)
    triples: dict[str, list[str]] = {}
    for (sensor, stem), axes in sorted(found.items(), key=lambda item: not item[0][1]):  # named ones first
        if set(axes) == set("xyz") and (stem or "acc" not in triples):
            triples.setdefault(sensor, [axes[axis] for axis in "xyz"])
    bare = found.get(("acc", ""))
    with_name = [axes for (sensor, stem), axes in found.items() if sensor == "acc" and stem and set(axes) == set("xyz")]
    if bare is not None and with_name:
        triples["acc"] = [with_name[0][axis] for axis in "xyz"]
    return triples


def _words(name: str) -> list[str]:
    plain = re.sub(r"[(\[].*?[)\]]", " ", name)
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", plain)
    return re.findall(r"[a-z]+", spaced.lower())


def _axis_and_stem(name: str) -> tuple[str, str]:
    """Return the axis, "" where there is none, and the other words of a column name."""
    words = _words(name)
    axes = [word for word in words if word in ("x", "y", "z")]
    if axes:
        rest = list(words)
        rest.remove(axes[-1])
        return axes[-1], " ".join(rest)
    glued = " ".join([*words[:-1], words[-1][:-1]]).strip() if words else ""
    if glued and words[-1][-1] in "xyz" and _sensor(glued):
        return words[-1][-1], glued
    return "", " ".join(words)


def _sensor(stem: str) -> str:
    """Return the sensor a column's words tell of, or ""."""
    words = stem.split()
    if not words:
        return "acc"
    if any(word in NOT_MEASURED for word in words):
        return ""
    for word in (*words, "".join(words)):
        for sensor, beginnings in SENSOR_WORDS.items():
            if word.startswith(beginnings):
                return sensor
    return SENSOR_LETTERS.get(words[-1], "") if len(words[-1]) == 1 else ""


def _first(names: Sequence[str], words: Sequence[str]) -> str | None:
    """Return the first name that is, or else contains, the earliest of the words."""
    for word in words:
        for name in names:
            if "_".join(_words(name)) == word:
                return name
    for word in words:
        for name in names:
            if word in _words(name) and len(word) > 2:
                return name
    return None
