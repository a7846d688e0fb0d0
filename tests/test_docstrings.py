"""Every example in a docstring runs and prints what it says."""

import doctest
import importlib
import pkgutil

PACKAGES = ("shared_peft", "vision", "imu_saga", "deploy")


def module_names() -> list[str]:
    """Every module but the command lines, which would run."""
    names = []
    for package in PACKAGES:
        path = importlib.import_module(package).__path__
        names += [package, *(found.name for found in pkgutil.walk_packages(path, f"{package}."))]
    return [name for name in names if not name.endswith("__main__")]


def test_examples_in_docstrings_run_as_shown() -> None:
    results = {name: doctest.testmod(importlib.import_module(name)) for name in module_names()}
    assert {name: result.failed for name, result in results.items() if result.failed} == {}
    assert sum(result.attempted for result in results.values()) >= 10
