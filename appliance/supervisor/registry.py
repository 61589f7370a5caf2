"""The components this firmware has: every package `appliance/NAME` with a `spec.py` that has a function `declare`.

Nothing here knows a component by name, so adding one touches no other folder.
"""

import importlib
import importlib.util
import pkgutil

import appliance
from appliance.component import BadDeclaration, ComponentSpec, Declare
from appliance.config import Config


def declarations() -> dict[str, Declare]:
    """Return the `declare` function of each component package, by the package's name, in alphabetical order."""
    found: dict[str, Declare] = {}
    for package in sorted(pkgutil.iter_modules(appliance.__path__), key=lambda module: module.name):
        name = f"appliance.{package.name}.spec"
        if package.ispkg and importlib.util.find_spec(name) is not None:
            found[package.name] = importlib.import_module(name).declare
    if not found:
        raise BadDeclaration("This firmware has no components.")
    return found


def specs(config: Config) -> tuple[ComponentSpec, ...]:
    """Return what every component declares under `config`."""
    return tuple(declare(config) for declare in declarations().values())
