"""A registry of named constructors, modelled on Gymnasium's `register` and `make`."""

import difflib
import importlib
import warnings
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from typing import Any, Generic, TypeVar

from common.errors import InputError

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
    near = difflib.get_close_matches(name.lower(), spelled, n=3, cutoff=0.5)
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
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError, TypeError) as error:
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        if missing and not f"{module}.".startswith(f"{missing}."):
            raise InputError(
                f"{entry_point!r} needs the package {missing!r}; install it."
            ) from error
        raise InputError(
            f"Cannot load {entry_point!r} ({error}); the form is module:attribute."
        ) from error


def load_plugins(modules: Iterable[str]) -> None:
    """Import modules that register something; raise `InputError` where one does not import."""
    for module in modules:
        try:
            importlib.import_module(module)
        except (ImportError, ValueError, TypeError) as error:
            raise InputError(
                f"Cannot import the plugin {module!r} ({error}); give a module's name, and install"
                " it or add its folder to PYTHONPATH."
            ) from error


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
            InputError: `id` already stands for something else, or a listener refuses it.
        """
        spec = Spec(id, entry_point, dict(kwargs or {}))
        if self.specs.get(id, spec) != spec:
            raise InputError(
                f"The {self.kind} {id!r} is already {self.specs[id].entry_point}; take another id."
            )
        for tell in self.listeners:
            tell(id)
        self.specs[id] = spec

    def spec(self, id: str) -> Spec:
        """Return the spec of `id`; raise `InputError` with near misses where it is unknown."""
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
        """Construct what is registered as `id`, `kwargs` overriding its defaults."""
        return self.load(id)(**{**self.spec(id).kwargs, **kwargs})

    def ids(self) -> list[str]:
        """Return the registered ids in the order of registration."""
        return list(self.specs)
