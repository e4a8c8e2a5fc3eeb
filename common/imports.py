"""Modules that a user names, imported."""

import importlib
from collections.abc import Iterable
from operator import attrgetter
from types import ModuleType
from typing import Any

from common.errors import InputError, described


def load_attribute(entry_point: str) -> Any:
    """Import `module:attribute`, the attribute of one of the module's, `module:Class.inner`, too.

    Raises:
        InputError: either does not exist, or the module needs a package that is not installed.
    """
    module, _, attribute = entry_point.partition(":")
    try:
        return attrgetter(attribute)(load_module(module))
    except AttributeError as error:
        raise InputError(
            f"Cannot load {entry_point!r} ({error}); the form is module:attribute."
        ) from error


def load_module(name: str) -> ModuleType:
    """Import a module that a user named.

    Raises:
        InputError: there is none, it needs a package that is not installed, or it fails.
    """
    try:
        if not all(part.isidentifier() for part in name.split(".")):
            raise ModuleNotFoundError("no module's name", name=name)
        return importlib.import_module(name)
    except InputError:
        raise
    except ModuleNotFoundError as error:
        if f"{name}.".startswith(f"{error.name}."):
            raise InputError(
                f"Cannot import {name!r} ({error}); give a module's name, and install it or add its"
                " folder to PYTHONPATH."
            ) from error
        raise InputError(f"{name!r} needs the package {error.name!r}; install it.") from error
    except (Exception, SystemExit) as error:
        raise InputError(f"Importing {name!r} fails ({described(error)}); mend it.") from error


def load_plugins(modules: Iterable[str]) -> None:
    """Import modules that register something; raise `InputError` where one does not import."""
    for module in modules:
        load_module(module)
