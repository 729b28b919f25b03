"""The exceptions that end a command with one line."""

import re


class UserError(Exception):
    """Bad input or usage. The message is one line that names the thing and the remedy; the command exits with 2."""


class DoesNotFit(UserError):
    """A program that needs more memory than a device has."""


def out_of_memory(error: Exception) -> DoesNotFit | None:
    """What a compiler's or device's complaint says in a line, if memory is what it is about."""
    if "RESOURCE_EXHAUSTED" not in str(error):
        return None
    told = re.search(r"Used [\d.]+\w+ of [\d.]+\w+", str(error))
    return DoesNotFit(
        f"does not fit ({told[0].lower() if told else 'out of memory'} a device); take fewer rows, more fsdp, remat=all"
        " or more accumulation"
    )


class JobError(Exception):
    """A job of several processes that cannot begin or go on. The command exits with 1."""
