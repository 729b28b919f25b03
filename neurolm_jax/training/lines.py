"""Files of one JSON object a line, which a killed run may leave with a last line half-written."""

import json
import pathlib
from collections.abc import Iterable

from neurolm_jax.outputs import appearing_file


def read(file: pathlib.Path) -> list[dict]:
    """The whole lines of a file; [] if there is none."""
    return [json.loads(line) for line in file.read_text().split("\n")[:-1]] if file.exists() else []


def rewrite(file: pathlib.Path, lines: Iterable[dict]) -> None:
    """The file with these lines alone."""
    with appearing_file(file) as unfinished:
        unfinished.write_text("".join(json.dumps(line) + "\n" for line in lines))


def append(file: pathlib.Path, line: dict) -> None:
    """One line more."""
    with file.open("a") as opened:
        opened.write(json.dumps(line) + "\n")
