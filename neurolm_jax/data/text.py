"""Text as token shards, and rows of it."""

import ast
import functools
import pathlib
from collections.abc import Iterable, Iterator, Sequence

import msgpack
import numpy as np

from neurolm_jax.data import vocabulary
from neurolm_jax.data.shards import Shards
from neurolm_jax.errors import UserError

BLOCK = 8192  # tokens in a record
VALIDATION = 50  # every so many-th block is kept for validation
SUFFIXES = (".txt", ".md", ".rst", ".py")
SKIPPED = {"site-packages", "test", "tests", "__pycache__"}
SHORTEST = 80  # characters; shorter docstrings are mostly labels


def documents(inputs: Iterable[pathlib.Path]) -> Iterator[tuple[pathlib.Path, str]]:
    """Text of every readable file under the inputs: plain text as it is, of Python files the docstrings.

    Raises:
      UserError: an input does not exist.
    """
    for path in inputs:
        if not path.exists():
            raise UserError(f"{path}: no such file or folder")
        files = [path] if path.is_file() else sorted(_files(path))
        for file in files:
            try:
                text = file.read_text(encoding="utf-8")
                if file.suffix == ".py":
                    text = "\n\n".join(_docstrings(ast.parse(text)))
            except (UnicodeDecodeError, SyntaxError, ValueError):
                continue  # test data of other encodings and versions lies among Python's own files
            if text:
                yield file, text


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
        self._source, self._length, self._seed = shards.source, length, seed
        self._pieces = (BLOCK - 1) // length  # in a record
        if not len(self._source):
            raise UserError(f"{shards.path}: no text in it")

    def __len__(self) -> int:
        return len(self._source) * self._pieces

    def __getitem__(self, index: int) -> np.ndarray:
        epoch, piece = divmod(index, len(self))
        if self._seed is not None:
            piece = self._order(epoch)[piece]
        record, piece = divmod(int(piece), self._pieces)
        tokens = np.frombuffer(msgpack.unpackb(self._source[record])["tokens"], "<u2")
        return tokens[piece * self._length : (piece + 1) * self._length + 1].astype(np.int32)

    @functools.lru_cache(maxsize=2)
    def _order(self, epoch):
        return np.random.default_rng((self._seed, epoch)).permutation(len(self))


def _files(folder):
    for path in folder.rglob("*"):
        inner = path.relative_to(folder).parts
        if path.suffix in SUFFIXES and not SKIPPED.intersection(inner):
            yield path


def _docstrings(tree: ast.AST) -> Sequence[str]:
    kinds = ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef
    found = (ast.get_docstring(node) for node in ast.walk(tree) if isinstance(node, kinds))
    return [text for text in found if text and len(text) >= SHORTEST]
