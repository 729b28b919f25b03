"""What every command shares: bad input ends it with one line and exit code 2."""

import argparse
import errno
import io
import os
import pathlib
import sys
import traceback
from collections.abc import Callable

from neurolm_jax import huge_pages
from neurolm_jax.errors import JobError, UserError
from neurolm_jax.escaping import escape

UNWRITABLE = {errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.EFBIG}


def run(main: Callable[[], int | None], computes: bool = False) -> None:
    """Call ``main`` and leave with an exit code.

    That is 0 where it is done, 2 for bad usage or input, 75 where it was asked to end and the same command goes on
    later (``errors.GO_ON_LATER``), 1 (a lost process, or a traceback) for anything else.

    Args:
      main: returns nothing, or its exit code.
      computes: whether it runs a model, and so asks for huge pages.
    """
    if computes and main.__module__ == "__main__":
        huge_pages.ask_for_them()
    make_configs_importable()
    _escape_what_terminals_lack()
    try:
        code = main()
    except UserError as error:
        _leave(fail(error))
    except JobError as error:
        _leave(fail(error, 1))
    except OSError as error:
        if error.errno in UNWRITABLE:
            _leave(fail(f"{error.filename or 'a file'}: {error.strerror}; make room or repair its rights"))
        _leave_job()
        raise
    except Exception:
        _leave_job()
        raise
    if code:  # all processes of a job come here, so they leave by the usual way
        sys.exit(code)


def folder_of_configs() -> pathlib.Path:
    """The folder that holds ``configs``: inside this package where it is installed, in a clone beside it."""
    package = pathlib.Path(__file__).parent
    return package / "shipped" if (package / "shipped").is_dir() else package.parent


def make_configs_importable() -> None:
    """So that config files in any folder can say ``from configs import sizes``. They are a namespace package: a folder
    ``configs`` where the command is given may have more."""
    if (folder := str(folder_of_configs())) not in sys.path:
        sys.path.append(folder)


def _escape_what_terminals_lack():
    """So that a terminal that is ASCII shows other characters as escapes, where Python would end with an error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _leave(code):
    _leave_job(code)
    sys.exit(code)


def _leave_job(code=None):
    """One process of several ends at once, with its own code: by the usual way it would wait for the others first,
    which wait for it, and all would be aborted."""
    jax = sys.modules.get("jax")
    if jax is None or not jax.distributed.is_initialized():
        return
    if code is None:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def fail(message: object, code: int = 2) -> int:
    """Print an error in one line; returns the exit code."""
    print(f"error: {escape(' '.join(str(message).split()))}", file=sys.stderr)
    return code


class _Parser(argparse.ArgumentParser):
    def error(self, message):
        sys.exit(fail(f"{message}; see '{self.prog} --help'"))


def argument_parser(name: str, description: str) -> argparse.ArgumentParser:
    """A parser for the command ``name`` (and for its sub-commands) whose own errors are one line too."""
    return _Parser(
        prog=f"python -m neurolm_jax.{name}", description=description, formatter_class=argparse.RawTextHelpFormatter
    )
