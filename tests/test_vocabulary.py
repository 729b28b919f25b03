import inspect
import lzma

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiktoken_ext import openai_public

from neurolm_jax.data import vocabulary
from neurolm_jax.errors import UserError


def test_known_tokens_of_gpt2():
    # As published with GPT-2 and in Hugging Face's examples of it.
    assert vocabulary.encode("Hello world") == [15496, 995]
    assert vocabulary.encode(" Yes") == [3363]
    assert vocabulary.encode(" No") == [1400]
    assert vocabulary.encoding().n_vocab == 50257
    assert vocabulary.encoding().eot_token == vocabulary.END_OF_TEXT


@given(st.text())
def test_round_trip(text):
    assert vocabulary.decode(vocabulary.encode(text)) == text


def test_names_of_special_tokens_are_plain_text():
    assert vocabulary.END_OF_TEXT not in vocabulary.encode("<|endoftext|>")


def test_tokens_outside_the_vocabulary_are_shown():
    assert vocabulary.decode([15496, vocabulary.SEPARATOR]) == "Hello\ufffd"


def test_the_ranks_are_those_that_tiktoken_downloads():
    """tiktoken knows the file by its SHA-256, and splits text by the same pattern."""
    source = inspect.getsource(openai_public.r50k_base)
    assert "r50k_base.tiktoken" in source and vocabulary.RANKS_SHA256 in source
    assert vocabulary.encoding()._pat_str == openai_public.r50k_pat_str


@pytest.mark.parametrize("damage", ["missing", "cut", "changed"])
def test_a_damaged_vocabulary_is_refused(tmp_path, damage):
    file = tmp_path / vocabulary.RANKS.name
    content = vocabulary.RANKS.read_bytes()
    if damage == "cut":
        file.write_bytes(content[:-100])
    elif damage == "changed":
        file.write_bytes(lzma.compress(lzma.decompress(content).replace(b" 995\n", b" 996\n")))
    with pytest.raises(UserError, match="GPT-2's vocabulary.*install neurolm_jax again"):
        vocabulary.read_ranks(file)
