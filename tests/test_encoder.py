"""Features: those of evaluation's probe, of a plain call of the modules, of every stage, layer and kind of input."""

import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import mne
import numpy as np
import pytest
from golden_figures import Golden, names, released_files
from small_corpora import noise

import neurolm_jax
from neurolm_jax.data.shards import open_shards
from neurolm_jax.eeg.electrodes import electrode_id, shared_id
from neurolm_jax.eeg.preprocessing import Preprocessing, preprocess
from neurolm_jax.eeg.tasks import load_task
from neurolm_jax.errors import UserError
from neurolm_jax.inference.asking import Answerer
from neurolm_jax.inference.encoder import Encoder
from neurolm_jax.inference.features import encode_windows
from neurolm_jax.inference.model import load_trained
from neurolm_jax.inference.windows import centre, read_windows
from neurolm_jax.models.attention import staircase
from neurolm_jax.models.neural_transformer import NeuralTransformer
from neurolm_jax.models.transformer import Block, LayerNorm, StackConfig

NAMES = ["Fp1", "C3", "EEG T3-REF", "O2"]
close = dict(rtol=1e-4, atol=1e-4)


@pytest.fixture(scope="module")
def encoders(runs):
    return {stage: neurolm_jax.load(runs / stage) for stage in ("tokenizer", "pretrain", "instruct")}


@pytest.fixture(scope="module")
def epochs():
    """Five windows of three seconds at 200 Hz, microvolts [5, 4, 600]."""
    return noise(3, seconds=15, rate=200).reshape(4, 5, 600).swapaxes(0, 1)


@pytest.fixture(scope="module")
def raw():
    """A little more than two stretches of noise, with two channels that are not used."""
    x = np.concatenate([noise(0, 600, 250), noise(1, 600, 250, channels=2)])
    info = mne.create_info([*NAMES, "X1", "EOG"], 250, ["eeg"] * 5 + ["eog"], verbose="error")
    return mne.io.RawArray(x * 1e-6, info, verbose="error")


def encode(encoder, epochs, **options):
    return encoder.encode(epochs, NAMES, 200, unit="uV", **options)


def row_of(epochs, literal=False):
    """Rows [n, S * C] as the modules read them, time-major, written out; literal keeps T3 apart from T7."""
    n, channels, samples = epochs.shape
    seconds = samples // 200
    patches = np.stack([epochs[:, c, 200 * s : 200 * s + 200] for s in range(seconds) for c in range(channels)], 1)
    electrodes = [electrode_id(name) if literal else shared_id(electrode_id(name)) for name in NAMES]
    channel = np.tile(electrodes, (n, seconds))
    second = np.tile(np.repeat(np.arange(seconds), channels), (n, 1))
    return jnp.asarray(patches / 100, jnp.float32), jnp.asarray(channel), jnp.asarray(second), jnp.ones_like(second)


def parts(encoder):
    """The encoder's config, its parameters, and the statistics of its features."""
    stage, weights = encoder._model.stage, encoder._model.weights
    if stage.config.stage == "tokenizer":
        return stage.model_config.encoder, weights.params["encoder"], weights.extra["state"]
    return stage.tokenizer_config.encoder, weights.extra["tokenizer"]["encoder"], weights.extra["state"]


def standardised(features, state):
    return 0.3 * (features - state.feature_mean) / np.sqrt(state.feature_variance + 1e-6)


@pytest.mark.parametrize("task", ["blink", "scp1", "eyes"])
@pytest.mark.parametrize("pool", ["none", "channel", "window"])
def test_features_are_those_of_evaluations_probe(encoders, small_data, runs, task, pool):
    windows = read_windows([(load_task(task), open_shards(small_data / task / "windows" / "test"))])[task]
    want, counts = encode_windows(load_trained(runs / "instruct"), windows, pool)
    records = [windows[i] for i in range(len(windows))]
    whole = load_task(task).seconds * 200
    begins = [centre(load_task(task), record.samples.shape[1]) for record in records]
    samples = np.stack([record.samples[:, begin : begin + whole] for record, begin in zip(records, begins)])
    from neurolm_jax.inference.signals import electrode_names

    found = encoders["instruct"].encode(samples, electrode_names(records[0].electrodes), 200, unit="uV", pool=pool)
    np.testing.assert_allclose(found.values.reshape(len(want), -1), want, **close)
    np.testing.assert_array_equal(np.bincount(found.codes.ravel(), minlength=len(counts)), counts)
    assert found.seconds == load_task(task).seconds and found.pool == pool and np.isnan(found.onsets).all()


@pytest.mark.parametrize("stage", ["tokenizer", "pretrain", "instruct"])
def test_features_are_those_of_a_plain_call(encoders, epochs, stage):
    config, params, state = parts(encoders[stage])
    want = NeuralTransformer(config).apply({"params": params}, *row_of(epochs))
    found = encode(encoders[stage], epochs)
    np.testing.assert_allclose(found.values, standardised(want, state).reshape(5, 3, 4, -1), **close)
    assert found.values.dtype == np.float32 and found.codes.shape == (5, 3, 4)
    assert found.channels == tuple(NAMES) and found.electrodes == ("FP1", "C3", "T3", "O2")


def test_every_stage_reads_alike(encoders, epochs):
    """The encoder is frozen after the tokenizer's stage, and so are features and codes."""
    found = [encode(encoder, epochs) for encoder in encoders.values()]
    for other in found[1:]:
        np.testing.assert_allclose(other.values, found[0].values, **close)
        np.testing.assert_array_equal(other.codes, found[0].codes)


def blocks(config, params, x, visible, **options):
    """What goes into each block and what comes out of the last, by a plain loop."""
    states = [x]
    for layer in range(config.layers):
        own = jax.tree.map(lambda p: p[layer], params["stack"]["blocks"])  # noqa: B023
        stack = StackConfig(config.layers, config.heads, config.width, dtype=config.dtype, **options)
        x, _ = Block(stack).apply({"params": own}, x, jnp.int32(layer), None, visible, 0, True)
        states.append(x)
    return states


def test_layers_of_the_encoder_are_those_of_a_plain_loop(encoders, epochs):
    config, params, state = parts(encoders["tokenizer"])
    rows = patches, channel, second, segment = row_of(epochs)
    from neurolm_jax.models.neural_transformer import PatchEmbedding

    x = PatchEmbedding(config).apply({"params": params["patch_embedding"]}, patches)
    x += params["channel_embedding"]["table"][channel] + params["time_embedding"]["table"][second]
    states = blocks(config, params, x, staircase(segment, second), use_bias=False, scale_by_depth=True)
    assert len(states) == config.layers + 1 >= 3
    for block, want in enumerate(states):
        for stage in ("tokenizer", "instruct")[: 2 if block == 1 else 1]:
            found = encode(encoders[stage], epochs, layer=f"encoder.{block}")
            np.testing.assert_allclose(found.values, np.reshape(want, (5, 3, 4, -1)), **close)
    last = LayerNorm(epsilon=1e-6).apply({"params": params["final_norm"]}, states[-1])
    np.testing.assert_allclose(last, NeuralTransformer(config).apply({"params": params}, *rows), **close)


@pytest.mark.parametrize("stage", ["pretrain", pytest.param("instruct", marks=pytest.mark.slow)])
def test_layers_of_the_language_model_are_those_of_a_plain_loop(encoders, epochs, stage):
    model, (_, channel, second, segment) = encoders[stage]._model, row_of(epochs)
    config, params = model.stage.model_config, model.weights.params
    features = encode(encoders[stage], epochs).values.reshape(5, 12, -1)
    if "projection" in params:
        projection = params["projection"]
        features = jax.nn.gelu(features @ projection["kernel"] + projection["bias"], approximate=False)
    language = params["language"]
    x = features + params["channel_embedding"]["table"][channel]
    x += language["position_embedding"]["table"][second]
    options = {"use_bias": True, "scale_by_depth": False, "approximate_gelu": config.language.approximate_gelu}
    states = blocks(config.language, language, x, staircase(segment, second), **options)
    for block, want in enumerate(states):
        found = encode(encoders[stage], epochs, layer=f"language.{block}")
        np.testing.assert_allclose(found.values, np.reshape(want, (5, 3, 4, -1)), **close)
    want = LayerNorm().apply({"params": language["final_norm"]}, states[-1])
    found = encode(encoders[stage], epochs, layer="language")
    np.testing.assert_allclose(found.values, np.reshape(want, (5, 3, 4, -1)), **close)
    assert encoders[stage].width("language") == found.values.shape[-1]


@pytest.mark.slow
@pytest.mark.parametrize("layer", ["language.1", "language"])
def test_low_rank_terms_are_in_the_layers(encoders, epochs, layer, runs, small_data):
    """A model with low-rank terms gives what it gives with its terms folded in."""
    from small_data import config

    from neurolm_jax import stages
    from neurolm_jax.training.mesh import make_mesh
    from neurolm_jax.training.state import create_state

    c = config("instruct", small_data, runs)
    c.language.lora_rank = 2
    stage = stages.build(c)
    weights = create_state(stage, make_mesh()).weights
    noisy = jax.tree.map(lambda x: x + 0.05 * jax.random.normal(jax.random.key(1), x.shape), weights.params)
    weights = weights._replace(params=noisy)
    model = encoders["instruct"]._model
    with_terms = Encoder(model._replace(stage=stage, weights=weights))
    folded = Encoder(model._replace(weights=stage.plain(weights)))
    found, want = (encode(encoder, epochs, layer=layer).values for encoder in (with_terms, folded))
    np.testing.assert_allclose(found, want, **close)


@pytest.mark.parametrize("pool", ["none", "window"])
def test_the_size_of_batches_is_no_matter(encoders, pool):
    windows = noise(5, 46, 200).reshape(4, 23, 400).swapaxes(0, 1)
    whole = encode(encoders["instruct"], windows, pool=pool)
    for size in (1, 3, 7, 1000):
        found = encode(encoders["instruct"], windows, pool=pool, batch_size=size)
        np.testing.assert_allclose(found.values, whole.values, rtol=1e-5, atol=1e-5)
        np.testing.assert_array_equal(found.codes, whole.codes)
    alone = [encode(encoders["instruct"], window[None], pool=pool).values[0] for window in windows[:3]]
    np.testing.assert_allclose(alone, whole.values[:3], rtol=1e-5, atol=1e-5)


def test_a_recording_is_filtered_as_in_training_and_cut_into_windows(encoders, raw):
    encoder = encoders["tokenizer"]
    found = encoder.encode(raw, seconds=4, every=6.5)
    signal = preprocess(raw.copy().pick(NAMES), Preprocessing(), "r")  # all of it at once
    onsets = np.arange(0, 596.1, 6.5)
    np.testing.assert_allclose(found.onsets, onsets)
    cut = [signal.samples[:, round(200 * t) : round(200 * t) + 800] for t in onsets]
    want = encode(encoder, np.stack(cut))
    np.testing.assert_allclose(found.values, want.values, atol=5e-3)
    assert (found.codes == want.codes).mean() > 0.99
    assert found.left_out.keys() == {"X1", "EOG"} and found.mains is None and not found.bad.any()
    assert found.channels == tuple(NAMES) and found.values.shape[:3] == (len(onsets), 4, 4)


def test_windows_far_apart_are_those_of_windows_side_by_side(encoders, raw):
    every = encoders["tokenizer"].encode(raw, seconds=2, pool="window")
    far = encoders["tokenizer"].encode(raw, seconds=2, every=290, pool="window")
    assert far.onsets.tolist() == [0, 290, 580]
    np.testing.assert_allclose(far.values, every.values[[0, 145, 290]], atol=2e-3)


def test_windows_begin_anew_after_a_jump_of_time_and_marked_seconds_are_bad(encoders, raw):
    """As if its two sides were recordings of their own."""
    whole = raw.copy().crop(0, 60, include_tmax=False)
    marks = mne.Annotations([21.0, 40.5], [0.0, 1.0], ["EDGE boundary", "Bad blink"])
    encoder, options = encoders["tokenizer"], {"seconds": 4, "preprocessing": Preprocessing(mains=50.0)}
    found = encoder.encode(whole.copy().set_annotations(marks), **options)
    before, after = whole.copy().crop(0, 21, include_tmax=False), whole.copy().crop(21, None)
    sides = [encoder.encode(side, **options) for side in (before, after)]
    np.testing.assert_allclose(found.onsets, [*sides[0].onsets, *(21 + sides[1].onsets)])
    np.testing.assert_allclose(found.values, np.concatenate([side.values for side in sides]), atol=2e-3)
    seconds = found.onsets[:, None] + np.arange(4)
    np.testing.assert_array_equal(found.bad.all(axis=2), (seconds < 41.5) & (seconds + 1 > 40.5))


def test_an_array_of_a_recording_is_a_recording(encoders, raw):
    short = raw.copy().crop(0, 30, include_tmax=False)
    want = encoders["tokenizer"].encode(short)
    assert want.values.shape == (3, 10, 4, 32) and want.seconds == 10
    volts = short.get_data(NAMES)
    for unit, scale in (("V", 1), ("mV", 1e3), ("uV", 1e6)):
        found = encoders["tokenizer"].encode(scale * volts, NAMES, 250, unit=unit)
        np.testing.assert_allclose(found.values, want.values, **close)


def test_bad_seconds_are_told(encoders, raw):
    damaged = raw.copy().crop(0, 40, include_tmax=False)
    damaged._data[1, 250 * 5 : 250 * 7] = np.nan
    damaged._data[2, 250 * 12 : 250 * 13] = 1e-6
    found = encoders["tokenizer"].encode(damaged, seconds=4, every=3.5)
    assert np.isfinite(found.values).all() and found.bad.shape == found.codes.shape
    for window, onset in enumerate(found.onsets):
        for second in range(4):
            begin = onset + second
            touched = [begin < 7 and begin + 1 > 5, begin < 13 and begin + 1 > 12]
            np.testing.assert_array_equal(found.bad[window, second], [False, *touched, False])


def test_epochs_are_taken_as_they_are(encoders, epochs):
    """MNE's, a list of them, and arrays of any rate: resampled, unfiltered, the middle of what is no whole second."""
    info = mne.create_info([*NAMES, "EOG"], 200, ["eeg"] * 4 + ["eog"], verbose="error")
    data = np.concatenate([epochs, np.ones((5, 1, 600))], axis=1) * 1e-6
    events = np.stack([1000 * np.arange(5), np.zeros(5), np.ones(5)], 1).astype(int)
    made = mne.EpochsArray(data, info, events=events, tmin=-1, verbose="error")
    want = encode(encoders["pretrain"], epochs)
    for given in (made, [made[i] for i in range(5)]):
        found = encoders["pretrain"].encode(given)
        np.testing.assert_allclose(found.values, want.values, **close)
        np.testing.assert_allclose(found.onsets, 5 * np.arange(5) - 1)
        assert found.left_out.keys() == {"EOG"} and found.bad is None
    longer = np.concatenate([epochs[..., :30], epochs, epochs[..., :30]], axis=2)
    np.testing.assert_allclose(encode(encoders["pretrain"], longer).values, want.values, **close)
    middle = encode(encoders["pretrain"], epochs, seconds=1)
    np.testing.assert_allclose(middle.values, encode(encoders["pretrain"], epochs[..., 200:400]).values, **close)
    fast = mne.filter.resample(epochs, up=2, npad="auto", verbose="error")
    found = encoders["pretrain"].encode(fast, NAMES, 400, unit="uV")
    again = mne.filter.resample(fast, down=2, npad="auto", verbose="error")
    np.testing.assert_allclose(found.values, encode(encoders["pretrain"], again).values, **close)


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    """A released tokenizer and NeuroLM checkpoint, small, converted: {stage: workdir}."""
    from neurolm_jax import convert
    from neurolm_jax.weights import files

    folder = tmp_path_factory.mktemp("converted")
    for name, (tensors, arguments) in released_files(Golden(names("lm")[0])).items():
        files.write(folder / f"{name}.safetensors", tensors, arguments)
    convert.convert_official(folder / "VQ.safetensors", folder / "tokenizer")
    tokenizer = folder / "VQ.safetensors"
    convert.convert_official(folder / "NeuroLM.safetensors", folder / "pretrain", tokenizer, "pretrain")
    convert.convert_official(folder / "NeuroLM.safetensors", folder / "bare", None, "pretrain")
    return folder


def test_converted_checkpoints_have_features(converted):
    """As the released models compute: the norm runs over the row, of the length that they were trained with."""
    found = {}
    windows = noise(3, 6, 200).reshape(4, 3, 400).swapaxes(0, 1)
    for name in ("tokenizer", "pretrain", "bare"):
        encoder = neurolm_jax.load(converted / name)
        found[name] = encode(encoder, windows)
        config, params, _ = parts(encoder)
        padded = [
            np.pad(np.asarray(x), [(0, 0), (0, 1024 - 8)] + [(0, 0)] * (x.ndim - 2))
            for x in row_of(windows, literal=True)
        ]
        want = NeuralTransformer(config).apply({"params": params}, *padded)[:, :8]  # as they are, not standardised
        # The norm's sums run over a thousand tokens of padding, whose rounding depends on how they are compiled.
        np.testing.assert_allclose(found[name].values, np.reshape(want, (3, 2, 4, -1)), atol=5e-3)
        without = NeuralTransformer(config).apply({"params": params}, *row_of(windows, literal=True))
        assert np.abs(found[name].values - np.reshape(without, (3, 2, 4, -1))).max() > 0.1
    np.testing.assert_allclose(found["tokenizer"].values, found["pretrain"].values, **close)
    np.testing.assert_array_equal(found["tokenizer"].codes, found["pretrain"].codes)
    assert found["bare"].codes is None  # no codebook came with it
    encode(neurolm_jax.load(converted / "pretrain"), windows, layer="language.1")


ARRAY = np.random.default_rng(0).standard_normal((2, 2, 400)) * 20


@pytest.mark.parametrize(
    ("given", "options", "message"),
    [
        (ARRAY, {}, "unit: an array needs one, 'uV', 'mV' or 'V', not None"),
        (ARRAY, {"unit": "microvolts"}, "unit: an array needs one"),
        (ARRAY, {"unit": "V"}, "far above EEG's: a wrong unit"),
        (ARRAY * 1e-6, {"unit": "uV"}, "far below EEG's: a wrong unit"),
        (ARRAY[0] * 1e-6, {"unit": "uV"}, "far below EEG's: a wrong unit"),
        (ARRAY, {"unit": "uV", "channels": ["X1", "X2"]}, "none of its channels is a known electrode"),
        (ARRAY, {"unit": "uV", "channels": ["Cz"]}, "channels: 1 names of 2 channels"),
        (ARRAY, {"unit": "uV", "channels": ["Cz", "Cz"]}, "channels: Cz is named twice"),
        (ARRAY, {"unit": "uV", "channels": None}, "an array needs channels, their names, and rate"),
        (ARRAY[0], {"unit": "uV", "rate": None}, "an array needs channels, their names, and rate"),
        (ARRAY, {"unit": "uV", "rate": 50}, "sampled at 50 Hz; EEG needs 64 Hz or more"),
        (ARRAY, {"unit": "uV", "rate": -1}, "rate: want Hz, more than 0"),
        (ARRAY[..., :150], {"unit": "uV"}, "too short, 0.75 s; a window has 1 s"),
        (ARRAY, {"unit": "uV", "seconds": 3}, "too short, 2.00 s; a window has 3 s"),
        (ARRAY[0], {"unit": "uV", "seconds": 3}, "too short, 2.0 s; a window has 3 s"),
        (ARRAY, {"unit": "uV", "seconds": 1.5}, "seconds: must be whole seconds from 1 to 64, not 1.5"),
        (np.tile(ARRAY, 40), {"unit": "uV"}, "80 s; the model reads 64 s or less"),
        (
            np.where(np.arange(400) == 7, np.nan, ARRAY),
            {"unit": "uV"},
            "NaN or infinite .* number 0, channel Cz",
        ),
        (ARRAY[:0], {"unit": "uV"}, "there is none"),
        (ARRAY[0, 0], {"unit": "uV"}, "want an array"),
        (ARRAY, {"unit": "uV", "every": 2.0}, "every: epochs are windows already"),
        (ARRAY[0], {"unit": "uV", "every": 0.0}, "every: want 0.005 s or more"),
        (ARRAY, {"unit": "uV", "pool": "mean"}, "pool: want one of none, channel, window, auto, not 'mean'"),
        (ARRAY, {"unit": "uV", "batch_size": 0}, "batch_size: want 1 or more, not 0"),
        (
            ARRAY,
            {"unit": "uV", "layer": "encoder.9"},
            "layer: a checkpoint of stage tokenizer has enc",
        ),
        (ARRAY, {"unit": "uV", "layer": "language"}, "layer: a checkpoint of stage tokenizer has encoder"),
        (ARRAY, {"unit": "uV", "layer": "encoder.-1"}, "layer: "),
    ],
)
def test_bad_input_is_named(encoders, given, options, message):
    arguments = {"channels": ["Cz", "Pz"], "rate": 200} | options
    with pytest.raises(UserError, match=message):
        encoders["tokenizer"].encode(given, **arguments)


def test_mne_objects_know_their_units(encoders, raw):
    for options in ({"unit": "uV"}, {"rate": 250}, {"channels": NAMES}):
        with pytest.raises(UserError, match="know their channels, rate and unit"):
            encoders["tokenizer"].encode(raw, **options)


def test_load_gives_what_a_checkpoint_can(encoders, runs):
    assert isinstance(encoders["instruct"], Answerer) and encoders["instruct"].questions
    assert not isinstance(encoders["pretrain"], Answerer)
    with pytest.raises(UserError, match="a checkpoint of stage language; features are those of tokenizer, pretrain"):
        neurolm_jax.load(runs / "language")
    with pytest.raises(UserError, match="no checkpoint in it"):
        neurolm_jax.load(runs)


def test_nothing_heavy_is_imported_with_the_package():
    code = (
        "import sys, neurolm_jax; neurolm_jax.load; dir(neurolm_jax);"
        "sys.exit(any(m in sys.modules for m in ('jax', 'mne', 'sklearn', 'numpy')))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=pathlib.Path(__file__).parents[1]).returncode == 0
