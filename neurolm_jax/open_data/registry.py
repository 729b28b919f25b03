"""The sets that can be fetched, those that have to be asked for, and their terms."""

import dataclasses
import functools
import pathlib
import tomllib
from collections.abc import Mapping, Sequence

from neurolm_jax.errors import UserError
from neurolm_jax.suggestions import did_you_mean

FILE = pathlib.Path(__file__).with_name("registry.toml")


@dataclasses.dataclass(frozen=True, eq=False)
class OpenSet:
    """A public set.

    Attributes:
      name: of its folder.
      tasks: names of the tasks that read it.
      people, hours, bytes: about how many.
      home: page of the set.
      list: URL of the list of its files, of a ``kind`` that ``listing`` reads.
      pattern: regular expression of the paths that are fetched.
      citation: what its owners ask to cite.
      sha1: file beside the registry with hashes of one edition of the set, lines "SHA-1  NAME"; None for none.
    """

    name: str
    title: str
    tasks: Sequence[str]
    people: int
    hours: float
    bytes: float
    licence: str
    home: str
    list: str
    kind: str
    pattern: str
    citation: Sequence[str]
    sha1: str | None = None

    def sha1_sums(self) -> Mapping[str, str]:
        """SHA-1 by file name, in the edition that ``sha1`` lists."""
        if self.sha1 is None:
            return {}
        lines = FILE.with_name(self.sha1).read_text().splitlines()
        return {name: digest for digest, name in (line.split() for line in lines)}

    def terms(self) -> str:
        """Licence and citations, for whoever downloads the set."""
        cite = "\n".join(f"    {entry}" for entry in self.citation)
        return f"{self.name}: {self.title}\n  {self.home}\n  licence: {self.licence}\n  cite:\n{cite}"


@functools.cache
def open_sets() -> dict[str, OpenSet]:
    """All sets that may be fetched, by name."""
    return {name: OpenSet(name, **fields) for name, fields in _read()["open"].items()}


def find(name: str) -> OpenSet:
    """A set by its own name, or by that of a task that reads it.

    Raises:
      UserError: it has to be asked for, or there is none of this name.
    """
    sets = open_sets()
    for entry in _read()["bound"].values():
        if name in entry["names"]:
            raise UserError(f"{name}: only {entry['owner']} may hand it out; ask at {entry['ask']}")
    for candidate in sets.values():
        if name == candidate.name or name in candidate.tasks:
            return candidate
    raise UserError(f"{name!r} is no set that can be fetched: {', '.join(sets)}{did_you_mean(name, list(sets))}")


def _read():
    return tomllib.loads(FILE.read_text(encoding="utf-8"))
