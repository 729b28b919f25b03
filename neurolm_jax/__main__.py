"""NeuroLM in JAX: train and study foundation models of brain signals.

neurolm VERB ...          the same as python -m neurolm_jax.VERB ...
neurolm VERB --help       what it does, and its flags
"""

import ast
import os
import pathlib
import runpy
import sys

from neurolm_jax.command import run
from neurolm_jax.errors import UserError
from neurolm_jax.suggestions import did_you_mean

VERBS = (
    "download",
    "prepare",
    "train",
    "evaluate",
    "ask",
    "embed",
    "convert",
    "aot",
    "scaling",
    "report",
    "inspect",
    "bench",
)


def main() -> None:
    if len(sys.argv) < 2 or sys.argv[1] in ("-h", "--help", "help"):
        print(overview())
        return
    if sys.argv[1] == "--version":
        from neurolm_jax import __version__

        print(__version__)
        return
    verb = sys.argv[1]
    if verb not in VERBS:
        raise UserError(f"{verb!r} is not one of {', '.join(VERBS)}{did_you_mean(verb, VERBS)}; see 'neurolm --help'")
    del sys.argv[1]
    if not sys.flags.safe_path:
        sys.path[0] = os.getcwd()  # where a script has the folder that it lies in
    # In place of this module, as python -m does it: processes that are spawned later look there for what to import.
    runpy.run_module(f"neurolm_jax.{verb}", run_name="__main__", alter_sys=True)


def overview() -> str:
    """The verbs, each with the first line of its documentation."""
    lines = "\n".join(f"  {verb:<10} {_about(verb)}" for verb in VERBS)
    return f"{__doc__.strip()}\n\n{lines}"


def _about(verb):
    # Read, not imported: help comes at once.
    file = pathlib.Path(__file__).with_name(f"{verb}.py")
    return ast.get_docstring(ast.parse(file.read_text())).partition("\n")[0]


def console() -> None:
    """The console script ``neurolm``."""
    run(main)


if __name__ == "__main__":
    console()
