"""What every command shares: bad input ends it with one line and exit code 2."""

import argparse
import errno
import sys
from collections.abc import Callable

from neurolm_jax.errors import JobError, UserError

UNWRITABLE = {errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.EFBIG}


def run(main: Callable[[], None]) -> None:
    """Call ``main`` and leave with its exit code: 0 done, 2 bad usage or input, 1 (a lost
    process, or a traceback) anything else."""
    try:
        main()
    except UserError as error:
        sys.exit(fail(error))
    except JobError as error:
        sys.exit(fail(error, 1))
    except OSError as error:
        if error.errno not in UNWRITABLE:
            raise
        sys.exit(fail(f"{error.filename or 'a file'}: {error.strerror}; make room or mend its rights"))


def fail(message: object, code: int = 2) -> int:
    """Print an error in one line; returns the exit code."""
    print(f"error: {' '.join(str(message).split())}", file=sys.stderr)
    return code


class _Parser(argparse.ArgumentParser):
    def error(self, message):
        sys.exit(fail(f"{message}; see 'python -m neurolm_jax.{self.prog} --help'"))


def argument_parser(name: str, description: str) -> argparse.ArgumentParser:
    """A parser for the command ``name`` (and for its sub-commands) whose own errors are one line too."""
    return _Parser(prog=name, description=description, formatter_class=argparse.RawTextHelpFormatter)
