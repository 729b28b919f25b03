"""The nearest of the names that there are."""

import difflib
from collections.abc import Iterable


def did_you_mean(name: str, names: Iterable[str], prefix: str = "") -> str:
    """``"; did you mean NAME?"``, or nothing where no name is near. Dotted names are also known by their last part."""
    names = list(names)
    last = name.rpartition(".")[2]
    parts = {other.rpartition(".")[2]: other for other in reversed(names)}  # of two, the first
    found = difflib.get_close_matches(name, names, 1, 0.75) or difflib.get_close_matches(last, parts, 1, 0.75)
    return f"; did you mean {prefix}{parts.get(found[0], found[0])}?" if found else ""
