"""The exceptions that end a command with one line."""

import contextlib
import re
from collections.abc import Iterator

GO_ON_LATER = 75  # exit code of a command that was asked to end and has saved: EX_TEMPFAIL of sysexits.h


class UserError(Exception):
    """Bad input or usage. The message is one line that names the thing and the remedy; the command exits with 2."""


class DoesNotFit(UserError):
    """A program that needs more memory than a device has."""


@contextlib.contextmanager
def memory_told() -> Iterator[None]:
    """A compiler's or device's complaint in a line, if memory is what it is about: DoesNotFit."""
    import jax

    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        told = re.search(r"Used [\d.]+\w+ of [\d.]+\w+", str(error))
        raise DoesNotFit(
            f"does not fit ({told[0].lower() if told else 'out of memory'} a device); take fewer rows, more fsdp,"
            " remat=all or more accumulation"
        ) from error


class JobError(Exception):
    """A job of several processes that cannot begin or go on. The command exits with 1."""
