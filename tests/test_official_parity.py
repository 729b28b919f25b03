"""Our models under the official presets compute what the official code computes.

Every pair in the folder named by NEUROLM_GOLDEN (by default tests/golden) is tested. Of padded rows, the outputs at
valid places count; losses, codebook and gradients do not, since there the official code counts padding.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden_figures import Golden, close, gradient_of, mixed_row, names

from neurolm_jax.models import quantizer
from neurolm_jax.models.attention import bidirectional, staircase
from neurolm_jax.models.losses import chunked_cross_entropy
from neurolm_jax.models.neurolm import NeuroLM, next_second_targets
from neurolm_jax.models.tokenizer import Tokenizer, reconstruction_targets
from neurolm_jax.stages.language import text_intervals, text_loss
from neurolm_jax.stages.tokenizer import learn, tokenizer_terms

pytestmark = pytest.mark.usefixtures("optimised")

golden = functools.cache(Golden)
each_tokenizer = pytest.mark.parametrize("name", names("vq"))
each_language = pytest.mark.parametrize("name", names("lm"))


def test_there_are_pairs():
    assert names("vq") and names("lm")


@functools.cache
def forward(name):
    g = golden(name)
    eeg = g.eeg()
    ids = eeg["channel"], eeg["second"], eeg["segment"]
    apply = jax.jit(Tokenizer(g.tokenizer).apply, static_argnames="method")
    model = functools.partial(apply, {"params": g.tokenizer_params})
    encoding = model(eeg["patches"], *ids, method="encode")
    z = quantizer.normalise(encoding.z)
    vectors = g.state.codebook.vectors
    codes, quantized, _ = quantizer.quantize(vectors, z.reshape(-1, z.shape[-1]))
    quantized = quantized.reshape(z.shape)
    rebuilt = model(quantized, *ids, method="decode")
    return eeg, encoding, codes.reshape(z.shape[:2]), quantized, rebuilt


@each_tokenizer
def test_rows(name):
    g, eeg = golden(name), golden(name).eeg()
    valid = g["valid"].astype(bool)
    np.testing.assert_array_equal(eeg["segment"] > 0, valid)
    np.testing.assert_array_equal(np.asarray(eeg["channel"])[valid], g["channel_ids"][valid])
    np.testing.assert_array_equal(np.asarray(eeg["second"])[valid], g["time_ids"][valid])


@each_tokenizer
def test_reconstruction_targets(name):
    g, eeg = golden(name), golden(name).eeg()
    frequency, raw = reconstruction_targets(golden(name).tokenizer, golden(name).state, eeg["patches"], eeg["segment"])
    valid = g["valid"].astype(bool)
    close(frequency[valid], g["y_freq"][valid])
    close(raw[valid], g["y_raw"][valid])


@each_tokenizer
def test_tokenizer_forward(name):
    g = golden(name)
    _, encoding, codes, quantized, (frequency, raw) = forward(name)
    valid = g["valid"].astype(bool)
    close(encoding.features[valid], g["features"][valid])
    close(encoding.z[valid], g["pre_quant"][valid])
    np.testing.assert_array_equal(np.asarray(codes)[valid], g["codes"][valid])
    close(quantized[valid], g["z_q"][valid])
    close(frequency[valid], g["rec_freq"][valid])
    close(raw[valid], g["rec_raw"][valid])


@each_tokenizer
def test_tokenizer_training_step(name):
    g = golden(name)
    if g.padded:
        return  # the official figures count padding here
    text = jnp.array(g.tensors["wte.weight"])[g["text_ids"]]

    def loss(params):
        terms = tokenizer_terms(g.tokenizer, params, g.state, g.eeg(), text, jnp.float32(g["alpha"]))
        return sum(term.value for term in terms.losses.values()), terms

    (total, (losses, _, observed)), gradients = jax.jit(jax.value_and_grad(loss, has_aux=True))(g.tokenizer_params)
    state, _ = learn(g.tokenizer, g.state, observed, jax.random.key(0))
    close(losses["frequency_loss"].value, g["freq_loss"])
    close(losses["raw_loss"].value, g["raw_loss"])
    close(losses["quantizer_loss"].value, g["quant_loss"])
    close(losses["domain_eeg_loss"].value, g["domain_loss_eeg"])
    close(losses["domain_text_loss"].value, g["domain_loss_text"])
    close(total, g["loss"] + g["domain_loss_eeg"] + g["domain_loss_text"])
    close(state.codebook.vectors, g["codebook_after"])
    close(state.codebook.usage, g["usage_after"])
    compare_gradients(g, gradient_of(gradients, g.tokenizer_entries))


def compare_gradients(g, gradients):
    wanted = {key for key in g.arrays if key.startswith(("gradnorm/", "grad/"))}
    assert wanted
    for key in wanted:
        kind, tensor = key.split("/", 1)
        got = gradients[tensor]
        close(np.linalg.norm(got) if kind == "gradnorm" else got, g[key], 1e-3)


@each_language
def test_attention_mask(name):
    g, eeg = golden(name), golden(name).eeg()
    shape = g["attention_mask_shape"]
    want = np.unpackbits(g["attention_mask"])[: np.prod(shape)].reshape(shape)[:, 0].astype(bool)
    intervals = staircase(eeg["segment"], eeg["second"])
    index = np.arange(shape[-1])
    got = (index >= np.asarray(intervals.start)[..., None]) & (index < np.asarray(intervals.stop)[..., None])
    for row, valid in enumerate(g["valid"].astype(bool)):
        square = np.ix_(valid, valid)
        np.testing.assert_array_equal(got[row][square], want[row][square])
    whole = bidirectional(eeg["segment"])
    lengths = np.asarray(g["n_tokens"])
    np.testing.assert_array_equal(np.asarray(whole.stop)[:, 0], lengths)


@functools.cache
def encode(g):
    """Features and codes of the frozen encoder."""
    eeg = g.eeg()
    ids = eeg["channel"], eeg["second"], eeg["segment"]
    apply = jax.jit(Tokenizer(g.tokenizer).apply, static_argnames="method")
    encoding = apply({"params": g.tokenizer_params}, eeg["patches"], *ids, method="encode")
    z = quantizer.normalise(encoding.z)
    return eeg, encoding.features, quantizer.nearest(g.state.codebook.vectors, z)


@each_language
def test_codes_and_targets(name):
    g = golden(name)
    eeg, _, codes = encode(g)
    valid = g["valid"].astype(bool)
    np.testing.assert_array_equal(np.asarray(codes)[valid], g["codes"][valid])
    targets = np.asarray(next_second_targets(codes, eeg["segment"], eeg["second"]))
    targets = np.where(targets >= 0, targets + g.neurolm.language.vocabulary, -1)
    np.testing.assert_array_equal(targets[valid], g["targets"][valid])


@each_language
def test_autoregression(name):
    g = golden(name)
    eeg, features, codes = encode(g)
    targets = next_second_targets(codes, eeg["segment"], eeg["second"])
    targets = jnp.where(targets >= 0, targets + g.neurolm.language.vocabulary, -1)
    hidden = NeuroLM(g.neurolm).apply(
        {"params": g.neurolm_params},
        features,
        eeg["channel"],
        eeg["second"],
        staircase(eeg["segment"], eeg["second"]),
        method="eeg_hidden",
    )
    classes = g.neurolm_params["language"]["output"]
    positions = g["eeg_logits_pos"]
    in_sample = positions < g["n_tokens"][0]
    close((hidden[0, positions] @ classes.T)[:, ::97][in_sample], g["eeg_logits"][in_sample])
    loss, accuracy = chunked_cross_entropy(hidden, classes, targets)
    if not g.padded:
        close(loss.value, g["eeg_loss"])
        close(accuracy.value, g["eeg_accuracy"])


@each_language
def test_text(name):
    g = golden(name)
    model, variables = NeuroLM(g.neurolm), {"params": g.neurolm_params}
    text = jnp.array(g["text_ids"], jnp.int32)
    classes = g.neurolm_params["language"]["output"]
    rng = jax.random.key(0)
    loss, accuracy = text_loss(model, variables, classes, text, rng, train=False, method="text_hidden")
    close(loss.value, g["text_loss"])
    close(accuracy.value, g["text_accuracy"])
    tokens = text[:, :-1]
    hidden = model.apply(variables, tokens, text_intervals(tokens), method="text_hidden")
    close(hidden[:, -1] @ classes[::97].T, g["text_logits_last"])


def mixed_hidden(g, params, features, sample, text):
    count = int(g["n_tokens"][sample])
    row = mixed_row(g.eeg(), sample, count, g.config["seconds"][sample], text)
    arguments = {"features": features[sample : sample + 1], **row}
    apply = jax.jit(NeuroLM(g.neurolm).apply, static_argnames="method")
    hidden = apply({"params": params}, **arguments, method="mixed_hidden")
    return hidden[0, count:]  # [len(text), W]


@each_language
def test_instruction(name):
    g = golden(name)
    _, features, _ = encode(g)
    text, targets = g["instruct_text"], jnp.array(g["instruct_targets"])

    def loss(params):
        hidden = jnp.concatenate([mixed_hidden(g, params, features, i, text[i]) for i in range(len(text))])
        loss, accuracy = chunked_cross_entropy(hidden[None], params["language"]["output"], targets.reshape(1, -1))
        return loss.value, accuracy.value

    (total, accuracy), gradients = jax.jit(jax.value_and_grad(loss, has_aux=True))(g.neurolm_params)
    if g.padded:
        return
    close(total, g["instruct_loss"])
    close(accuracy, g["instruct_accuracy"])
    compare_gradients(g, gradient_of(gradients, g.neurolm_entries))


@each_language
def test_greedy_answers(name):
    g = golden(name)
    _, features, _ = encode(g)
    prompt = g.config["prompt_len"]
    classes = g.neurolm_params["language"]["output"][:50257]
    for i, generated in enumerate(g["generated"]):
        # Of one length throughout: what follows a token does not matter to it.
        text = np.zeros(len(generated), np.int32)
        text[:prompt] = g["instruct_text"][i, :prompt]
        for place in range(prompt, len(generated)):
            logits = mixed_hidden(g, g.neurolm_params, features, i, text)[place - 1] @ classes.T
            if place == prompt:
                close(logits[::97], g["answer_logits"][i])
            text[place] = int(logits.argmax())
        np.testing.assert_array_equal(text, generated)
