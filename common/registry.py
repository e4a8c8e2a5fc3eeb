"""A registry of named constructors, modelled on Gymnasium's `register` and `make`."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from typing import Any, Generic, TypeVar

from common.errors import InputError, described
from common.imports import load_attribute
from common.names import unknown

T = TypeVar("T")


@dataclass(frozen=True)
class Spec:
    """One registered constructor: where its class lives and its default arguments."""

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
                attribute, _, _ = entry_point.value.partition("[")  # extras, which pip sees to
                self.register(entry_point.name, attribute.strip())
            except InputError as error:
                warnings.warn(f"{entry_point.value} is left out: {error}", stacklevel=2)

    def register(self, id: str, entry_point: str, kwargs: dict[str, Any] | None = None) -> None:
        """Register `id` as `module:Class`; the same registration twice is harmless.

        Raises:
            InputError: `id` already stands for something else or belongs to a family, a listener
                refuses it, or one of the two is no text.
        """
        if not isinstance(id, str):
            raise InputError(f"The id {id!r} is no text; give a name for the {self.kind}.")
        if not isinstance(entry_point, str):
            raise InputError(
                f"The {self.kind} {id!r} is registered as {entry_point!r}; write 'module:Class'."
            )
        prefix, colon, _ = id.partition(":")
        if colon and prefix in self.families:
            raise InputError(
                f"The {self.kind} {id!r} is one of the {self.families[prefix].form}; take another"
                " id."
            )
        spec = Spec(entry_point, dict(kwargs or {}))
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
            return Spec(*self.families[prefix].resolve(member))
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
            InputError: the id is unknown, or its class does not take the arguments, is abstract or
                fails.
        """
        try:
            return self.load(id)(**{**self.spec(id).kwargs, **kwargs})
        except InputError:
            raise
        except TypeError as error:
            raise InputError(f"The {self.kind} {id!r} cannot be made: {error}.") from error
        except Exception as error:
            raise InputError(f"The {self.kind} {id!r} fails ({described(error)}).") from error

    def ids(self) -> list[str]:
        """Return the registered ids in the order of registration."""
        return list(self.specs)
