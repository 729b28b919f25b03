"""Recordings of every format opened by MNE, with the reason where one cannot be."""

import ast
import importlib.util
import inspect
import json
import os
import pathlib
import re
import shutil
import tempfile
import weakref
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from neurolm_jax.eeg.files import READERS, Files, decode, not_fetched, stem_of, suffix_of
from neurolm_jax.eeg.reading import corrected
from neurolm_jax.errors import UserError
from neurolm_jax.suggestions import did_you_mean

if TYPE_CHECKING:  # MNE takes a second to import
    import mne

# What some of MNE's readers need and this project does not: the extra "formats" brings the first four.
PACKAGES = ("antio", "mffpy", "curryreader", "pymatreader", "pymef", "pandas", "defusedxml")
TEXTS = (".vhdr", ".vmrk", ".lay", ".dpa", ".dpo")  # which readers take for UTF-8
_ANY_CASE = (".edf", ".bdf", ".gdf", ".fif", ".eeg", ".set")  # whose readers take a suffix in capital letters too
_NOT_OPTIONS = {"preload", "verbose"}


class Unreadable(Exception):
    """A recording cannot be opened; the message says why, without its name."""


def open_raw(path: pathlib.Path, reader: str | None = None, **options: Any) -> "mne.io.BaseRaw":
    """Open a recording, its samples still on disk, and correct what MNE reads loosely, see ``eeg/reading.py``.

    Text that is not in the encoding that it should be in is read as Latin-1. Suffixes may be in capital letters, and
    names of a recording's other files may differ from those in its header in the case of letters.

    Args:
      reader: name of one of ``mne.io``'s readers; by default those of the suffix.
      options: of the reader; of several readers, each is given those that it takes.

    Raises:
      Unreadable: its content is not fetched, a package is missing, it needs one of several readers and none can read
        it, or an option is none of its reader's.
      Exception: whatever the only reader there is raises.
    """
    path, files = pathlib.Path(path), Files()
    companions = files.companions(path) if path.is_file() else {}
    for file in (path, *companions.values()):
        if fault := not_fetched(file):
            raise Unreadable(fault)
    functions = _readers(path, reader)
    known = sorted(set().union(*map(_options, functions)))
    if unknown := [name for name in options if name not in known]:
        raise Unreadable(f"{unknown[0]} is no option of its reader{did_you_mean(unknown[0], known)}")
    links = _Links(path, companions)
    reasons = []
    for function in functions:
        taken = {name: value for name, value in options.items() if name in _options(function)}
        try:
            raw = corrected(_decoding(function, links.path, verbose="warning", **taken))
        except Exception as error:
            reason = said(error)
            if package := _missing_package(error, path):
                reason = (
                    f"its reader needs the package {package}: 'pip install {package}', or all such packages by"
                    f" 'pip install neurolm_jax[formats]' ({reason})"
                )
            if len(functions) > 1:
                reasons.append(f"{function.__name__}: {reason}")
            elif package:
                raise Unreadable(reason) from error
            else:
                raise
        else:
            raw._links = links  # samples are read through them
            raw._opened_from = path
            return raw
    raise Unreadable(f"none of its readers can read it ({'; '.join(reasons)})")


def read_annotations(path: pathlib.Path) -> "mne.Annotations":
    """Read a file of annotations, in Latin-1 where it is not in UTF-8.

    Raises:
      Unreadable: its content is not fetched.
      Exception: whatever MNE raises.
    """
    import mne

    if fault := not_fetched(path):
        raise Unreadable(fault)
    return _decoding(mne.read_annotations, path)


def opened_from(raw: "mne.io.BaseRaw") -> list[pathlib.Path]:
    """Return the files by which a recording, or each that it was put together from, can be opened again."""
    files = map(pathlib.Path, filter(None, (getattr(raw, "_opened_from", None), *raw.filenames)))
    return list({os.path.realpath(file): file for file in reversed(list(files))}.values())[::-1]


def parse_options(pairs: Sequence[str]) -> dict[str, Any]:
    """Parse options of readers, as ``data_format=int32``; values are Python's literals, or else texts.

    Raises:
      UserError: one is no such pair, or no option of any reader.
    """
    import mne

    readers = [getattr(mne.io, name) for names in READERS.values() for name in names if hasattr(mne.io, name)]
    known = sorted(set().union(*map(_options, readers)))
    options = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals:
            raise UserError(f"--reader_options {pair}: want NAME=VALUE, such as data_format=int32")
        if name not in known:
            raise UserError(f"--reader_options {pair}: no reader has an option {name}{did_you_mean(name, known)}")
        try:
            options[name] = json.loads(json.dumps(ast.literal_eval(text)))  # as a manifest has it
        except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
            options[name] = text
    return options


def accepted(path: pathlib.Path, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of some options that the readers of a file take."""
    if not options:
        return {}
    names = set().union(*map(_options, _readers(path)))
    return {name: value for name, value in options.items() if name in names}


def said(error: BaseException) -> str:
    """Return an exception's own words in one line, after its type."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:300]}" if text else type(error).__name__


def _readers(path, reader=None):
    """MNE's functions for a file, or the one of a name; the likely one alone where the first bytes tell it."""
    import mne

    if reader:
        return [getattr(mne.io, reader)]
    names = [name for name in READERS.get(suffix_of(path.name), ()) if hasattr(mne.io, name)]
    if suffix_of(path.name) == ".cnt" and path.is_file():
        head = _head(path)
        if head.startswith((b"RIFF", b"RF64")):
            names = ["read_raw_ant"]
        elif head.startswith(b"Version"):
            names = ["read_raw_cnt"]
    return [getattr(mne.io, name) for name in names] or [mne.io.read_raw]


def _head(path):
    with path.open("rb") as file:
        return file.read(128)


def _options(function):
    """Names of a reader's options; of its first argument, the file, none."""
    return set(list(inspect.signature(function).parameters)[1:]) - _NOT_OPTIONS


def _decoding(function, path, **options):
    """What a function of MNE reads from a file, in Latin-1 where it fails to decode a text and can be told to."""
    try:
        return function(path, **options)
    except Exception as error:
        undecoded = any(isinstance(cause, UnicodeError) for cause in _chain(error))
        if not undecoded or "encoding" in options or "encoding" not in inspect.signature(function).parameters:
            raise
    return function(path, encoding="latin1", **options)


def _chain(error):
    """An exception and those that it comes from."""
    seen = []
    while error is not None and error not in seen:
        seen.append(error)
        error = error.__cause__ or error.__context__
    return seen


def _missing_package(error, path):
    """The package for lack of which a reader gave up, or None."""
    text = " ".join(map(str, _chain(error)))
    if suffix_of(path.name) == ".set" and _head(path).startswith(b"MATLAB 7.3"):
        text += " pymatreader"  # without it MNE tries another reader, whose words are about that format
    named = (name for name in PACKAGES if re.search(rf"\b{name}\b", text))
    return next((name for name in named if importlib.util.find_spec(name) is None), None)


class _Links:
    """The path that a reader is given: the recording's own, or in a folder of links one with the names that the reader
    looks for. The folder is there as long as this is, and every copy is the same one."""

    def __init__(self, path, companions):
        self.path = path
        suffix = suffix_of(path.name)
        name = path.name
        if suffix and suffix not in _ANY_CASE:
            name = stem_of(path.name) + suffix
        wanted = {name: path} | companions
        texts = {n: t for n, file in wanted.items() if (t := _mended(file)) is not None}
        if not texts and all(n == file.name for n, file in wanted.items()):
            return
        folder = pathlib.Path(tempfile.mkdtemp(prefix="neurolm-"))
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        for n, file in wanted.items():
            if n in texts:
                (folder / n).write_text(texts[n], encoding="utf-8", newline="")
            elif file.exists():
                os.symlink(os.path.abspath(file), folder / n)
        self.path = folder / name

    def __deepcopy__(self, memo):
        return self


def _mended(file):
    """Text of a file that should be in UTF-8 and is not; None of other files."""
    if file.suffix.lower() not in TEXTS or not file.is_file():
        return None
    data = file.read_bytes()
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return re.sub(r"(?im)^Codepage=.*$", "Codepage=UTF-8", _decoded(data))
    return None


def _decoded(data):
    """A text by the code page that it names, else as ``decode`` takes it."""
    match = re.search(rb"(?im)^Codepage=[ \t]*([\w-]+)", data)
    name = match[1].decode("ascii", "replace") if match else ""
    try:
        return data.decode({"ANSI": "cp1252"}.get(name.upper(), name or "utf-8"))
    except (UnicodeError, LookupError):
        return decode(data)
