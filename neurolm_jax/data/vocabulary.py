"""GPT-2's exact byte-pair encoding, offline, and the two special tokens."""

import base64
import functools
import hashlib
import lzma
import pathlib
from typing import TYPE_CHECKING

from neurolm_jax.errors import UserError

if TYPE_CHECKING:  # not every command wants words
    import tiktoken

END_OF_TEXT = 50256
SEPARATOR = 50257  # [SEP], the first of the rows that pad GPT-2's vocabulary
RANKS = pathlib.Path(__file__).parent / "gpt2" / "r50k_base.tiktoken.xz"
RANKS_SHA256 = "306cd27f03c1a714eca7108e03d66b7dc042abe8c258b44c199a7ed9838dd930"  # uncompressed; as tiktoken pins it
_SPLIT = r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"""


@functools.cache
def encoding() -> "tiktoken.Encoding":
    """Return GPT-2's ``tiktoken.Encoding``, made from the ranks that this package ships."""
    import tiktoken

    return tiktoken.Encoding(
        "gpt2", pat_str=_SPLIT, mergeable_ranks=read_ranks(RANKS), special_tokens={"<|endoftext|>": END_OF_TEXT}
    )


def read_ranks(file: pathlib.Path) -> dict[bytes, int]:
    """Read the rank of each of GPT-2's tokens from a compressed tiktoken file: a base64 token and its rank a line.

    Raises:
      UserError: the file is missing, or is not GPT-2's.
    """
    try:
        content = lzma.decompress(file.read_bytes())
    except (OSError, lzma.LZMAError) as error:
        raise UserError(f"{file}: GPT-2's vocabulary cannot be read ({error}); install neurolm_jax again") from error
    if hashlib.sha256(content).hexdigest() != RANKS_SHA256:
        raise UserError(f"{file}: not GPT-2's vocabulary; install neurolm_jax again")
    return {base64.b64decode(token): int(rank) for token, rank in map(bytes.split, content.splitlines())}


def encode(text: str) -> list[int]:
    """Tokens of ordinary text: a special token's name in it is text like any other."""
    return encoding().encode_ordinary(text)


def decode(tokens: list[int]) -> str:
    """Text of tokens; those outside GPT-2's vocabulary are shown as the replacement character."""
    pieces = [encoding().decode_single_token_bytes(t) if t <= END_OF_TEXT else "\ufffd".encode() for t in tokens]
    return b"".join(pieces).decode("utf-8", errors="replace")
