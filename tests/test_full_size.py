"""NeuroLM-B at full size: released files in, the official figures out, the same files back."""

import json
import pathlib
import resource

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden_figures import close, mixed_row
from named_tensors import tensor

from neurolm_jax import convert
from neurolm_jax.eeg.electrodes import VOCABULARY
from neurolm_jax.models import quantizer
from neurolm_jax.models.attention import staircase
from neurolm_jax.models.losses import chunked_cross_entropy
from neurolm_jax.models.neurolm import NeuroLM, next_second_targets
from neurolm_jax.models.tokenizer import Tokenizer
from neurolm_jax.stages.language import text_loss
from neurolm_jax.stages.restore import restore_stage
from neurolm_jax.stages.tokenizer import learn, tokenizer_terms
from neurolm_jax.training.mesh import make_mesh
from neurolm_jax.weights import files, official
from neurolm_jax.weights.mapping import write_tensors

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("optimised")]
FOLDER = pathlib.Path(__file__).parent / "golden"
FILES = {"VQ": "tokenizer", "NeuroLM-B": "pretrain"}


@pytest.fixture(scope="module")
def description():
    return json.loads((FOLDER / "full_b.json").read_text())


@pytest.fixture(scope="module")
def figures():
    with np.load(FOLDER / "full_b.npz") as arrays:
        return dict(arrays)


@pytest.fixture(scope="module")
def workdirs(description, tmp_path_factory):
    """The two released files, as the official code would save them, and what ``convert`` made of them."""
    folder = tmp_path_factory.mktemp("full")
    for name in FILES:
        tensors = {f"_orig_mod.{key}": value for key, value in released(description, name).items()}
        files.write(folder / f"{name}.pt", tensors, description["arguments"])
    convert.convert_official(folder / "VQ.pt", folder / "tokenizer")
    convert.convert_official(folder / "NeuroLM-B.pt", folder / "pretrain", folder / "VQ.pt")
    return folder


def released(description, name):
    seed = description["config"]["seed"]
    manifest = description["manifest"][name]
    return {key: tensor(key.replace("tokenizer.", "VQ.encoder."), shape, seed) for key, shape in manifest.items()}


@pytest.fixture(scope="module")
def eeg(description, figures):
    c = description["config"]
    rows = {"patches": [], "channel": [], "second": []}
    for i, (channels, seconds) in enumerate(zip(c["chan_lists"], c["seconds"])):
        samples = figures[f"raw_uv_{i}"].reshape(len(channels), seconds, 200)
        rows["patches"].append(samples.swapaxes(0, 1).reshape(-1, 200) / 100)
        rows["channel"].append([VOCABULARY.index(channel) for channel in channels] * seconds)
        rows["second"].append(np.repeat(np.arange(seconds), len(channels)))
    rows = {key: jnp.array(np.stack(value)) for key, value in rows.items()}
    return rows | {"segment": jnp.ones_like(rows["channel"])}


def test_shapes_are_the_released_ones(description):
    shapes = json.loads((FOLDER / "official_checkpoints.json").read_text())
    for name in FILES:
        assert description["manifest"][name] == shapes[f"{name}.pt"]


@pytest.mark.parametrize("name", FILES)
def test_export_gives_the_files_back(workdirs, description, name):
    out = workdirs / f"{name}-again.pt"
    convert.export_checkpoint(workdirs / FILES[name], out)
    tensors, arguments = files.read(out)
    wanted = released(description, name)
    assert tensors.keys() == wanted.keys()
    for key in wanted:
        np.testing.assert_array_equal(tensors[key], wanted[key], err_msg=key)
    for key, fields in arguments.items():
        assert fields.items() >= description["arguments"][key].items()


def test_tokenizer(workdirs, description, figures, eeg):
    stage, weights = restore_stage(workdirs / "tokenizer", make_mesh())
    ids = eeg["channel"], eeg["second"], eeg["segment"]
    apply = jax.jit(Tokenizer(stage.model_config).apply, static_argnames="method")
    encoding = apply({"params": weights.params}, eeg["patches"], *ids, method="encode")
    close(encoding.features[..., ::8], figures["features"])
    close(encoding.z, figures["pre_quant"])
    vectors = weights.extra["state"].codebook.vectors
    codes = quantizer.nearest(vectors, quantizer.normalise(encoding.z))
    np.testing.assert_array_equal(codes, figures["codes"])
    frequency, raw = apply({"params": weights.params}, vectors[codes], *ids, method="decode")
    close(frequency[..., ::4], figures["rec_freq"])
    close(raw[..., ::4], figures["rec_raw"])

    def loss(params):
        text = weights.extra["text"][figures["text_ids"][:, :-1]]
        strength = jnp.float32(description["config"]["alpha"])
        terms = tokenizer_terms(stage.model_config, params, weights.extra["state"], eeg, text, strength)
        return sum(term.value for term in terms.losses.values()), terms

    (_, (losses, _, observed)), gradients = jax.jit(jax.value_and_grad(loss, has_aux=True))(weights.params)
    state, _ = learn(stage.model_config, weights.extra["state"], observed, jax.random.key(0))
    for name in ("frequency", "raw", "quantizer", "domain_eeg", "domain_text"):
        close(losses[f"{name}_loss"].value, figures[f"{name}_loss"])
    close(state.codebook.vectors[figures["used"]], figures["codebook_after"])
    close(state.codebook.usage[figures["used"]], figures["usage_after"])
    compare_norms(write_tensors(official.tokenizer_entries(), gradients), figures, "gradnorm/")


def compare_norms(gradients, figures, prefix):
    wanted = {key.removeprefix(prefix): value for key, value in figures.items() if key.startswith(prefix)}
    assert len(wanted) > 100
    for name, norm in wanted.items():
        close(np.linalg.norm(gradients[name]), norm, 1e-3)


def test_neurolm(workdirs, description, figures, eeg):
    stage, weights = restore_stage(workdirs / "pretrain", make_mesh())
    model = NeuroLM(stage.model_config)
    variables, classes = {"params": weights.params}, weights.params["language"]["output"]
    features, codes = jax.jit(stage.encode)(weights.extra, eeg)
    np.testing.assert_array_equal(codes, figures["codes"])
    targets = next_second_targets(codes, eeg["segment"], eeg["second"])
    targets = jnp.where(targets >= 0, targets + stage.model_config.language.vocabulary, -1)
    intervals = staircase(eeg["segment"], eeg["second"])
    hidden = model.apply(variables, features, eeg["channel"], eeg["second"], intervals, method="eeg_hidden")
    close(hidden[:, ::7] @ classes[::97].T, figures["eeg_logits"])
    loss, accuracy = chunked_cross_entropy(hidden, classes, targets)
    close(loss.value, figures["eeg_loss"])
    close(accuracy.value, figures["eeg_accuracy"])
    text = figures["text_ids"].astype(np.int32)
    loss, _ = text_loss(model, variables, classes, text, jax.random.key(0), train=False, method="text_hidden")
    close(loss.value, figures["text_loss"])

    def mixed(params, sample, words):
        """Hidden states [1, len(words), W] of words after a sample's EEG."""
        count = eeg["channel"].shape[1]
        row = mixed_row(eeg, sample, count, description["config"]["seconds"][sample], words)
        arguments = {"features": features[sample : sample + 1], **row}
        return model.apply({"params": params}, **arguments, method="mixed_hidden")[:, count:]

    prompt = description["config"]["prompt_len"]

    def answer_loss(params):
        losses = []
        for i in range(len(text)):
            hidden = mixed(params, i, text[i, :-1])[0]
            targets = jnp.where(jnp.arange(len(hidden)) >= prompt, text[i, 1:], -1)
            losses.append(chunked_cross_entropy(hidden[None], params["language"]["output"], targets[None])[0].value)
        return sum(losses) / len(losses)

    total, gradients = jax.jit(jax.value_and_grad(answer_loss))(weights.params)
    close(total, figures["instruct_loss"])
    tensors = write_tensors(official.neurolm_entries(projected=False), gradients)
    compare_norms(tensors, figures, "lm/gradnorm/")

    for i, wanted in enumerate(figures["generated"]):
        words = np.zeros(len(wanted), np.int32)
        words[:prompt] = wanted[:prompt]
        for place in range(prompt, len(wanted)):
            logits = mixed(weights.params, i, words)[0, place - 1] @ classes[:50257].T
            words[place] = int(logits.argmax())
        np.testing.assert_array_equal(words, wanted)
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.1f} GB")
