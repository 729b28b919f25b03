"""The exceptions that end a command with one line."""


class UserError(Exception):
    """Bad input or usage. The message is one line that names the thing and the remedy; the command exits with 2."""


class JobError(Exception):
    """A job of several processes that cannot begin or go on. The command exits with 1."""
