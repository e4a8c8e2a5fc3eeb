"""A registry of named constructors, modelled on Gymnasium's `register` and `make`."""

import difflib
import importlib
import warnings
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from types import ModuleType
from typing import Any, Generic, TypeVar

from common.errors import InputError, described

T = TypeVar("T")


def unknown(kind: str, name: str, choices: Iterable[str]) -> InputError:
    """Build the error for a name that is not among `choices`, with the nearest ones."""
    choices = sorted(choices)
    near = nearest(name, choices)
    hint = f"did you mean {' or '.join(near)}?" if near else f"choose from {', '.join(choices)}."
    return InputError(f"Unknown {kind} {name!r}; {hint}")


def nearest(name: str, choices: Iterable[str]) -> list[str]:
    """Return up to three of `choices` that are like `name`, capital letters or not."""
    spelled = {choice.lower(): choice for choice in choices}
    near = difflib.get_close_matches(str(name).lower(), spelled, n=3, cutoff=0.5)
    return [spelled[choice] for choice in near]


def check_names(kind: str, names: Iterable[str], choices: Collection[str]) -> None:
    """Raise `InputError` at the first of `names` that is not among `choices`."""
    for name in names:
        if name not in choices:
            raise unknown(kind, name, choices)


def load_attribute(entry_point: str) -> Any:
    """Import `module:attribute`.

    Raises:
        InputError: either does not exist, or the module needs a package that is not installed.
    """
    module, _, attribute = entry_point.partition(":")
    try:
        return getattr(load_module(module), attribute)
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
    except Exception as error:
        raise InputError(f"Importing {name!r} fails ({described(error)}); mend it.") from error


def load_plugins(modules: Iterable[str]) -> None:
    """Import modules that register something; raise `InputError` where one does not import."""
    for module in modules:
        load_module(module)


@dataclass(frozen=True)
class Spec:
    """One registered constructor: where its class lives and its default arguments."""

    id: str
    entry_point: str
    kwargs: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Family:
    """Ids of the form `prefix:member` that need no registration of their own.

    Attributes:
        form: how a member is written, for people.
        resolve: maps a member to its entry point and default arguments.
        members: lists the members that can be told without importing them.
    """

    form: str
    resolve: Callable[[str], tuple[str, dict[str, Any]]]
    members: Callable[[], list[str]] = list


def alike(first: Spec, second: Spec) -> bool:
    """Tell whether two specs say the same; arguments may be arrays, or hold some."""
    from gymnasium.utils.env_checker import data_equivalence

    same_arguments = data_equivalence(first.kwargs, second.kwargs, exact=True)
    return same_arguments and first.entry_point == second.entry_point


class Registry(Generic[T]):
    """Maps ids to constructors that are imported only when made.

    Args:
        kind: what is registered, for error sentences.
        group: entry-point group through which other packages register; an entry point's name is
            the id, its value the `module:Class`.

    Whoever wants to know of later registrations appends a function of the id to `listeners`.
    """

    def __init__(self, kind: str, group: str) -> None:
        self.kind, self.group = kind, group
        self.specs: dict[str, Spec] = {}
        self.families: dict[str, Family] = {}
        self.listeners: list[Callable[[str], Any]] = []

    def register_entry_points(self) -> None:
        """Register what installed packages offer; warn of what cannot be."""
        for entry_point in entry_points(group=self.group):
            try:
                self.register(entry_point.name, entry_point.value)
            except InputError as error:
                warnings.warn(f"{entry_point.value} is left out: {error}", stacklevel=2)

    def register(self, id: str, entry_point: str, kwargs: dict[str, Any] | None = None) -> None:
        """Register `id` as `module:Class`; the same registration twice is harmless.

        Raises:
            InputError: `id` already stands for something else, a listener refuses it, or one of
                the two is no text.
        """
        if not isinstance(id, str):
            raise InputError(f"The id {id!r} is no text; give a name for the {self.kind}.")
        if not isinstance(entry_point, str):
            raise InputError(
                f"The {self.kind} {id!r} is registered as {entry_point!r}; write 'module:Class'."
            )
        spec = Spec(id, entry_point, dict(kwargs or {}))
        if id in self.specs and not alike(self.specs[id], spec):
            raise InputError(
                f"The {self.kind} {id!r} is already {self.specs[id].entry_point}; take another id."
            )
        for tell in self.listeners:
            tell(id)
        self.specs[id] = spec

    def spec(self, id: str) -> Spec:
        """Return the spec of `id`; raise `InputError` with near misses where it is unknown."""
        if not isinstance(id, str):
            raise InputError(
                f"A {self.kind} is named by its id, not given as {type(id).__name__}; register its"
                " class and pass the id."
            )
        if id in self.specs:
            return self.specs[id]
        prefix, _, member = id.partition(":")
        if prefix in self.families and member:
            return Spec(id, *self.families[prefix].resolve(member))
        raise unknown(self.kind, id, self.choices())

    def choices(self) -> list[str]:
        """Return the registered ids and the forms of the families, for people."""
        return [*self.specs, *(family.form for family in self.families.values())]

    def load(self, id: str) -> type[T]:
        """Import and return the class registered as `id`; raise `InputError` if it is none."""
        entry_point = self.spec(id).entry_point
        loaded = load_attribute(entry_point)
        if not isinstance(loaded, type):
            raise InputError(f"The {self.kind} {id!r} is {entry_point}, which is no class.")
        return loaded

    def make(self, id: str, **kwargs: Any) -> T:
        """Construct what is registered as `id`, `kwargs` overriding its defaults.

        Raises:
            InputError: the id is unknown, or its class does not take the arguments or is abstract.
        """
        try:
            return self.load(id)(**{**self.spec(id).kwargs, **kwargs})
        except TypeError as error:
            raise InputError(f"The {self.kind} {id!r} cannot be made: {error}.") from error

    def ids(self) -> list[str]:
        """Return the registered ids in the order of registration."""
        return list(self.specs)
