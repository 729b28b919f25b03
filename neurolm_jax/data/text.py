"""Text as token shards, and rows of it."""

import ast
import functools
import json
import pathlib
from collections.abc import Iterable, Iterator, Sequence

import msgpack
import numpy as np

from neurolm_jax.data import vocabulary
from neurolm_jax.data.shards import DamagedRecord, Shards
from neurolm_jax.data.streams import Damaged
from neurolm_jax.errors import UserError

BLOCK = 8192  # tokens in a record
VALIDATION = 50  # every so many-th block is kept for validation
SUFFIXES = (".txt", ".md", ".rst", ".py", ".jsonl", ".parquet")
HUGGING_FACE = "hf:"  # before the name of a data set there
SKIPPED = {"site-packages", "test", "tests", "__pycache__"}
SHORTEST = 80  # characters; shorter docstrings are mostly labels


def empty_text(length: int) -> np.ndarray:
    """A row of ``TextRows`` without any text, int32 [length + 1]."""
    return np.zeros(length + 1, np.int32)


def documents(inputs: Iterable[str | pathlib.Path]) -> Iterator[str]:
    """The texts under files and folders, and of data sets ``hf:OWNER/NAME`` on the Hugging Face hub.

    A plain text is one document, a row of .jsonl or .parquet is one by its field ``text``; of Python files it is the
    docstrings.

    Raises:
      UserError: an input does not exist, or a row has no text.
    """
    for given in inputs:
        if str(given).startswith(HUGGING_FACE):
            yield from _hugging_face(str(given).removeprefix(HUGGING_FACE))
            continue
        path = pathlib.Path(given)
        if not path.exists():
            raise UserError(f"{path}: no such file or folder")
        for file in [path] if path.is_file() else sorted(_files(path)):
            yield from filter(None, _READERS.get(file.suffix, _plain)(file))


def blocks(texts: Iterable[str]) -> Iterator[tuple[bytes, dict]]:
    """Records of ``BLOCK`` tokens from documents joined by <|endoftext|>; an incomplete last one is dropped."""
    tokens: list[int] = []
    for text in texts:
        tokens += [*vocabulary.encode(text), vocabulary.END_OF_TEXT]
        while len(tokens) >= BLOCK:
            data = np.array(tokens[:BLOCK], "<u2").tobytes()
            del tokens[:BLOCK]
            yield msgpack.packb({"tokens": data}), {"tokens": BLOCK}


class TextRows:
    """Pieces of ``length + 1`` tokens: int32 [length + 1], inputs and targets overlapping by all but one."""

    def __init__(self, shards: Shards, length: int, seed: int | None):
        if shards.manifest.get("kind") != "text":
            raise UserError(f"{shards.path}: not text shards; write them with 'python -m neurolm_jax.prepare text'")
        if not 0 < length < BLOCK:
            raise UserError(f"text_length must lie between 1 and {BLOCK - 1}, not {length}")
        self.content = shards.content
        self._path, self._source, self._length, self._seed = shards.path, shards.source, length, seed
        self._pieces = (BLOCK - 1) // length  # in a record
        if not len(self._source):
            raise UserError(f"{shards.path}: no text in it")

    def __len__(self) -> int:
        return len(self._source) * self._pieces

    def __getitem__(self, index: int) -> np.ndarray | Damaged:
        """In place of a record that cannot be read, the same piece of the next one that can."""
        first, piece = self._place(index)
        faults = []
        for record in range(first, first + len(self._source)):
            try:
                data = self._source[record % len(self._source)]
            except DamagedRecord as error:
                faults.append(str(error))
                continue
            tokens = np.frombuffer(msgpack.unpackb(data)["tokens"], "<u2")
            row = tokens[piece * self._length : (piece + 1) * self._length + 1].astype(np.int32)
            return Damaged(row, faults) if faults else row
        raise UserError(f"{self._path}: no record can be read; prepare the text again")

    def origins(self, index: int) -> list[str]:
        record, piece = self._place(index)
        return [f"{self._path}: record {record}, from token {piece * self._length}"]

    def _place(self, index):
        """Record of a row, and its piece of that."""
        epoch, piece = divmod(index, len(self))
        if self._seed is not None:
            piece = self._order(epoch)[piece]
        return divmod(int(piece), self._pieces)

    @functools.lru_cache(maxsize=2)
    def _order(self, epoch):
        return np.random.default_rng((self._seed, epoch)).permutation(len(self))


def _files(folder):
    for path in folder.rglob("*"):
        inner = path.relative_to(folder).parts
        if path.suffix in SUFFIXES and not SKIPPED.intersection(inner):
            yield path


def _plain(file):
    try:
        yield file.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return  # test data of other encodings lies among Python's own files


def _python(file):
    try:
        yield "\n\n".join(_docstrings(ast.parse(file.read_text(encoding="utf-8"))))
    except (UnicodeDecodeError, SyntaxError, ValueError):
        return  # and so do files of other versions


def _jsonl(file):
    with file.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                row = json.loads(line)
            except ValueError as error:
                raise UserError(f"{file}: line {number} is not JSON ({error})") from error
            if not isinstance(row, dict) or not isinstance(row.get("text"), str):
                raise UserError(f"{file}: line {number} has no field 'text'")
            yield row["text"]


def _parquet(file):
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise UserError(f"{file}: parquet needs pyarrow: pip install 'neurolm_jax[cluster]'") from error
    try:
        table = pyarrow.parquet.ParquetFile(file)
    except pyarrow.ArrowInvalid as error:
        raise UserError(f"{file}: not a parquet file ({error})") from error
    if "text" not in table.schema_arrow.names:
        raise UserError(f"{file}: has no column 'text', but {', '.join(table.schema_arrow.names)}")
    for batch in table.iter_batches(columns=["text"]):
        yield from batch.column(0).to_pylist()


def _hugging_face(name):
    try:
        import datasets
    except ImportError as error:
        raise UserError(f"hf:{name}: needs the package datasets: pip install datasets") from error
    try:
        rows = datasets.load_dataset(name, split="train", streaming=True)
    except (OSError, ValueError) as error:
        raise UserError(f"hf:{name}: cannot be loaded ({error})") from error
    return (row["text"] for row in rows)


def _docstrings(tree: ast.AST) -> Sequence[str]:
    kinds = ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef
    found = (ast.get_docstring(node) for node in ast.walk(tree) if isinstance(node, kinds))
    return [text for text in found if text and len(text) >= SHORTEST]


_READERS = {".py": _python, ".jsonl": _jsonl, ".parquet": _parquet}
