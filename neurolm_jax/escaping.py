"""Text from outside (names of files, headers, annotations, sidecars), made fit to be printed, packed and shown."""

from typing import Any


def escape(text: str, keep: str = "") -> str:
    r"""Return ``text`` with every character that cannot be shown written as its escape.

    Control characters become ``\n`` or ``\x1b``, marks that turn the direction of writing ``\u202e``, and bytes of a
    file's name that are not UTF-8 (lone surrogates in Python) ``\xff``. Printable text of any script stays as it is,
    and so does what was escaped before. The result can be encoded as UTF-8.

    Args:
      keep: characters that stay, such as a line's end.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep else _escaped(c) for c in text)


def escape_all(value: Any) -> Any:
    """Escape every text in a value as JSON has it, keys of its objects too."""
    if isinstance(value, str):
        return escape(value)
    if isinstance(value, dict):
        return {escape_all(key): escape_all(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [escape_all(inner) for inner in value]
    return value


def _escaped(character):
    if "\udc80" <= character <= "\udcff":  # how Python keeps a byte that it could not decode
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape").decode("ascii")
