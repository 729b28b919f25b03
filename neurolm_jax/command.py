"""What every command shares: bad input ends it with one line and exit code 2."""

import sys
from collections.abc import Callable

from neurolm_jax.errors import UserError


def run(main: Callable[[], None]) -> None:
    """Call ``main`` and leave with its exit code: 0 done, 2 bad usage or input, 1 (a traceback) anything else."""
    try:
        main()
    except UserError as error:
        sys.exit(fail(error))


def fail(message: object) -> int:
    """Print a user's error in one line; returns the exit code."""
    print(f"error: {' '.join(str(message).split())}", file=sys.stderr)
    return 2


def one_line_usage(parser):
    """Make an ``argparse`` parser's own errors one line too."""
    parser.error = lambda message: sys.exit(fail(f"{message}; see '{parser.prog} --help'"))
    return parser
