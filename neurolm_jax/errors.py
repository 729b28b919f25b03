"""The one exception for what a user can mend."""


class UserError(Exception):
    """Bad input or usage. The message is one line that names the thing and the remedy; the command exits with 2."""
