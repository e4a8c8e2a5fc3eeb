"""Names that a user gives: refused where unknown, with those that are like them."""

import difflib
from collections.abc import Collection, Iterable

from common.errors import InputError


def unknown(kind: str, name: str, choices: Iterable[str]) -> InputError:
    """Build the error for a name that is not among `choices`, with the nearest ones."""
    choices = sorted(choices)
    near = nearest(name, choices)
    hint = f"did you mean {' or '.join(near)}?" if near else f"choose from {', '.join(choices)}."
    return InputError(f"Unknown {kind} {name!r}; {hint}")


def nearest(name: str, choices: Iterable[str], likeness: float = 0.5) -> list[str]:
    """Return up to three of `choices` that are like `name`, capital letters or not.

    `likeness` is the least ratio of `difflib.SequenceMatcher`.
    """
    spelled = {choice.lower(): choice for choice in choices}
    near = difflib.get_close_matches(str(name).lower(), spelled, n=3, cutoff=likeness)
    return [spelled[choice] for choice in near]


def check_names(kind: str, names: Iterable[str], choices: Collection[str]) -> None:
    """Raise `InputError` at the first of `names` that is not among `choices`."""
    for name in names:
        if name not in choices:
            raise unknown(kind, name, choices)
