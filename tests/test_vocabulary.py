from hypothesis import given
from hypothesis import strategies as st

from neurolm_jax.data import vocabulary


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
