"""Text into shards of tokens."""

import collections
import pathlib
import re
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import msgpack
import numpy as np

from neurolm_jax.corpus.documents import documents
from neurolm_jax.data import shards, vocabulary
from neurolm_jax.data.text import BLOCK
from neurolm_jax.outputs import appearing_folder

PIECE = 2**20  # characters that are encoded at once, at least
_WORD_ENDS = re.compile(r"(?<=\S)(?=\s)")
VALIDATION = 50  # every so many-th block is kept for validation


class Written(NamedTuple):
    """What became of some texts: tokens in shards, documents that were read, and files left out by reason."""

    tokens: int
    documents: int
    skipped: dict[str, int]


def write_text(inputs: Sequence[str | pathlib.Path], out: pathlib.Path) -> Written:
    """``out/train`` and ``out/validation`` from texts, see ``documents``; every ``VALIDATION``-th block is for the
    latter.

    Raises:
      UserError: an input that is missing or has no text.
      OSError: a disk is full or must not be written.
    """
    from tqdm import tqdm

    begin, count = time.perf_counter(), 0
    skipped: collections.Counter[str] = collections.Counter()

    def texts() -> Iterator[str]:
        nonlocal count
        found = tqdm(documents(inputs, skipped), unit=" documents", desc="prepare", disable=None)
        for count, document in enumerate(found, start=1):  # noqa: B007
            yield document

    with appearing_folder(out) as folder:
        writers = {split: shards.FolderWriter(folder / split) for split in ("train", "validation")}
        number = 0
        for number, (data, entry) in enumerate(blocks(texts()), start=1):
            writers["train" if number % VALIDATION else "validation"].write(data, entry)
        for split, writer in writers.items():
            told = {"inputs": list(map(str, inputs)), "skipped": dict(skipped)}
            writer.finish({"kind": "text", "split": split} | told | {"seconds": time.perf_counter() - begin})
    return Written(number * BLOCK, count, dict(skipped))


def blocks(texts: Iterable[str]) -> Iterator[tuple[bytes, dict]]:
    """Records of ``BLOCK`` tokens from documents joined by <|endoftext|>, each with its entry of the index; an
    incomplete last one is dropped. The work grows with the tokens alone, however long a document is."""
    rest = np.zeros(0, "<u2")
    for text in texts:
        for piece in (*pieces(text), None):
            tokens = [vocabulary.END_OF_TEXT] if piece is None else vocabulary.encode(piece)
            rest = np.concatenate([rest, np.array(tokens, "<u2")])
            whole = len(rest) // BLOCK * BLOCK
            for begin in range(0, whole, BLOCK):
                yield msgpack.packb({"tokens": rest[begin : begin + BLOCK].tobytes()}), {"tokens": BLOCK}
            rest = rest[whole:]


def pieces(text: str) -> Iterator[str]:
    """Cut a long text where a word ends and a space follows: the tokens of its pieces are those of the whole, as none
    of GPT-2's goes over such a place."""
    begin = 0
    while len(text) - begin > PIECE:
        found = _WORD_ENDS.search(text, begin + PIECE)
        if not found:
            break
        yield text[begin : found.start()]
        begin = found.start()
    yield text[begin:]
