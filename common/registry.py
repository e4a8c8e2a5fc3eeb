"""A registry of named constructors, modelled on Gymnasium's `register` and `make`."""

import difflib
import importlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from common.errors import InputError

T = TypeVar("T")


def unknown(kind: str, name: str, choices: Iterable[str]) -> InputError:
    """Build the error for a name that is not among `choices`, with the nearest ones."""
    choices = sorted(choices)
    near = difflib.get_close_matches(name, choices, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else f"choose from {', '.join(choices)}."
    return InputError(f"Unknown {kind} {name!r}; {hint}")


def load_attribute(entry_point: str) -> Any:
    """Import `module:attribute`; raise `InputError` where either does not exist."""
    module, _, attribute = entry_point.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(
            f"Cannot load {entry_point!r} ({error}); the form is module:attribute."
        ) from error


@dataclass(frozen=True)
class Spec:
    """One registered constructor: where its class lives and its default arguments."""

    id: str
    entry_point: str
    kwargs: dict[str, Any] = field(default_factory=dict)


class Registry(Generic[T]):
    """Maps ids to constructors that are imported only when made."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.specs: dict[str, Spec] = {}

    def register(self, id: str, entry_point: str, kwargs: dict[str, Any] | None = None) -> None:
        """Register `id` as `module:Class`; the same registration twice is harmless.

        Raises:
            InputError: `id` already stands for something else.
        """
        spec = Spec(id, entry_point, dict(kwargs or {}))
        if self.specs.setdefault(id, spec) != spec:
            raise InputError(
                f"The {self.kind} {id!r} is already {self.specs[id].entry_point}; take another id."
            )

    def spec(self, id: str) -> Spec:
        """Return the spec of `id`; raise `InputError` with near misses where it is unknown."""
        if id not in self.specs:
            raise unknown(self.kind, id, self.specs)
        return self.specs[id]

    def load(self, id: str) -> type[T]:
        """Import and return the class registered as `id`."""
        return load_attribute(self.spec(id).entry_point)

    def make(self, id: str, **kwargs: Any) -> T:
        """Construct what is registered as `id`, `kwargs` overriding its defaults."""
        return self.load(id)(**{**self.spec(id).kwargs, **kwargs})

    def ids(self) -> list[str]:
        """Return the registered ids in the order of registration."""
        return list(self.specs)
