"""Texts in files, folders and data sets of the Hugging Face hub, a document at a time."""

import ast
import collections
import functools
import json
import pathlib
from collections.abc import Iterable, Iterator, Sequence

from neurolm_jax.errors import UserError

SUFFIXES = (".txt", ".md", ".rst", ".py", ".jsonl", ".parquet")
HUGGING_FACE = "hf:"  # before the name of a data set there
INSTALLED = {"site-packages", "__pycache__"}  # folders below a library that are not of it
TESTS = {"test", "tests"}
SHORTEST = 80  # characters; shorter docstrings are mostly labels


class _NoText(Exception):
    """What a file is, that its text cannot be read."""


def documents(inputs: Iterable[str | pathlib.Path], skipped: collections.Counter[str]) -> Iterator[str]:
    """The texts under files and folders, and of data sets ``hf:OWNER/NAME`` on the Hugging Face hub.

    A plain text is one document, a row of .jsonl or .parquet is one by its field ``text``; of Python files it is the
    docstrings, but not of tests.

    Args:
      skipped: gets the number of files under folders that are left out, by reason; it is complete when the texts are.

    Raises:
      UserError: an input does not exist, a row has no text, or a file that is named itself cannot be read as text.
    """
    for given in inputs:
        if str(given).startswith(HUGGING_FACE):
            yield from filter(None, _hugging_face(str(given)))
            continue
        path = pathlib.Path(given)
        if not path.exists():
            raise UserError(f"{path}: no such file or folder")
        for file in [path] if path.is_file() else sorted(_files(path, skipped)):
            try:
                yield from filter(None, _READERS.get(file.suffix, _plain)(file))
            except _NoText as reason:
                if file == path:
                    raise UserError(f"{file}: is {reason}; convert it, or leave it out") from reason
                skipped[str(reason)] += 1
            except OSError as error:
                raise UserError(f"{file}: cannot be read ({error.strerror or error}); repair or remove it") from error


def _files(folder, skipped):
    for path in folder.rglob("*"):
        if path.suffix not in SUFFIXES or path.is_dir():
            continue
        inner = path.relative_to(folder).parts[:-1]
        if INSTALLED.intersection(inner):
            skipped["in site-packages"] += 1
        elif any(_of_tests(folder.joinpath(*inner[: i + 1]), path.suffix) for i in range(len(inner))):
            skipped["tests of Python code"] += 1
        else:
            yield path


@functools.lru_cache(maxsize=4096)
def _of_tests(folder, suffix):
    """Whether a file below has to do with tests of Python code: it is such a test, or data that lies with some. Other
    texts may well lie in a folder of that name, such as the test part of a corpus."""
    return folder.name in TESTS and (suffix == ".py" or any(folder.glob("*.py")))


def _text(file):
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise _NoText("not UTF-8") from error


def _plain(file):
    yield _text(file)


def _python(file):
    try:
        tree = ast.parse(_text(file))
    except (SyntaxError, ValueError) as error:
        raise _NoText("not Python of this version") from error
    yield "\n\n".join(_docstrings(tree))


def _docstrings(tree: ast.AST) -> Sequence[str]:
    kinds = ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef
    found = (ast.get_docstring(node) for node in ast.walk(tree) if isinstance(node, kinds))
    return [text for text in found if text and len(text) >= SHORTEST]


def _jsonl(file):
    with file.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                row = json.loads(line.decode("utf-8"))
            except ValueError as error:
                raise UserError(f"{file}: line {number} is not JSON in UTF-8 ({error})") from error
            if not isinstance(row, dict) or not isinstance(row.get("text"), str):
                raise UserError(f"{file}: line {number} has no field 'text'")
            yield row["text"]


def _parquet(file):
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise UserError(f"{file}: parquet needs pyarrow: pip install pyarrow") from error
    try:
        table = pyarrow.parquet.ParquetFile(file)
    except pyarrow.ArrowInvalid as error:
        raise UserError(f"{file}: not a parquet file ({error})") from error
    if "text" not in table.schema_arrow.names:
        raise UserError(f"{file}: has no column 'text', but {', '.join(table.schema_arrow.names)}")
    for batch in table.iter_batches(columns=["text"]):
        for text in batch.column(0).to_pylist():
            yield _checked(text, file)


def _hugging_face(name):
    try:
        import datasets
    except ImportError as error:
        raise UserError(f"{name}: needs the package datasets: pip install datasets") from error
    try:
        for row in datasets.load_dataset(name.removeprefix(HUGGING_FACE), split="train", streaming=True):
            if "text" not in row:
                raise UserError(f"{name}: its rows have no field 'text', but {', '.join(row)}")
            yield _checked(row["text"], name)
    except (OSError, ValueError) as error:
        raise UserError(f"{name}: cannot be loaded ({error})") from error


def _checked(text, name):
    """A row's text, or None."""
    if not isinstance(text, str | None):
        raise UserError(f"{name}: the field 'text' of its rows is {type(text).__name__}, not text")
    return text


_READERS = {".py": _python, ".jsonl": _jsonl, ".parquet": _parquet}
