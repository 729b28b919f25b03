"""T3, T4, T5 and T6: a row of the tables for each name in released models, those of T7, T8, P7 and P8 in our own."""

import dataclasses

import jax
import mne
import numpy as np
import pytest
from golden_figures import Golden, mixed_row

from configs import instruct, pretrain
from neurolm_jax import stages
from neurolm_jax.corpus.parts import entry
from neurolm_jax.data import shards
from neurolm_jax.data.dialogues import Dialogue, RowSize, fill_dialogues
from neurolm_jax.data.eeg_rows import EEGRows, float_patches
from neurolm_jax.data.streams import stack
from neurolm_jax.eeg.electrodes import VOCABULARY, recorded_electrodes, shared_id
from neurolm_jax.eeg.preprocessing import Preprocessing, choose_channels, preprocess
from neurolm_jax.eeg.records import Record, decode, encode
from neurolm_jax.eeg.tasks.readers import read_raw
from neurolm_jax.inference.questions import Size, row_size
from neurolm_jax.models import quantizer
from neurolm_jax.models.neurolm import NeuroLM
from neurolm_jax.models.tokenizer import Tokenizer
from neurolm_jax.stages import corpora

OLD, NEW = ("T3", "T4", "T5", "T6"), ("T7", "T8", "P7", "P8")


def ids(*names):
    return tuple(map(VOCABULARY.index, names))


def corpus(folder, files):
    """Shards of files, their samples as they are."""
    written = []
    for number, file in enumerate(files):
        signal = preprocess(read_raw(file), Preprocessing(low=None, high=None), file.name)
        record = Record(signal.samples, signal.electrodes, "tuh", file.name)
        written.append((encode(record), entry(record) | {"recording": number}))
    shards.write(folder, written, {"kind": "eeg", "split": "train", "recordings": []})
    return shards.open_shards(folder)


def tuh_file(path, samples, names):
    """A recording whose channels are called as in Temple University Hospital's sets; samples [C, N] microvolts."""
    info = mne.create_info([f"EEG {name}-REF" for name in names], 200, "eeg", verbose="error")
    mne.io.RawArray(samples * 1e-6, info, verbose="error").save(path, fmt="double", verbose="error")
    return path


@pytest.mark.usefixtures("optimised")
def test_from_a_file_to_the_official_logits(tmp_path):
    """The second recording has T5: what follows its question is as in the official code with its own row, not P7's."""
    g = Golden("lm_full_rows")
    lists = g.config["chan_lists"]
    assert "T5" in lists[1] and not set(OLD) & set(lists[0])
    files = [tuh_file(tmp_path / f"{i}_raw.fif", g[f"raw_uv_{i}"], names) for i, names in enumerate(lists)]
    part = corpus(tmp_path / "shards", files)
    classes = g.neurolm_params["language"]["output"][:50257]

    def answers(literal_names):
        rows = EEGRows([part], g.config["rows"], 64, None, literal_names=literal_names)
        eeg = stack(sorted((rows[0], rows[1]), key=lambda row: int(row["channel"][0] != g["channel_ids"][0, 0])))
        tokens = eeg["channel"], eeg["second"], eeg["segment"]
        apply = jax.jit(Tokenizer(g.tokenizer).apply, static_argnames="method")
        encoding = apply({"params": g.tokenizer_params}, float_patches(eeg), *tokens, method="encode")
        codes = quantizer.nearest(g.state.codebook.vectors, quantizer.normalise(encoding.z))
        logits = []
        for i, text in enumerate(g["instruct_text"][:, : g.config["prompt_len"]]):
            count = int(g["n_tokens"][i])
            row = mixed_row(eeg, i, count, g.config["seconds"][i], text)
            model = NeuroLM(g.neurolm)
            hidden = model.apply(
                {"params": g.neurolm_params}, features=encoding.features[i : i + 1], **row, method="mixed_hidden"
            )
            logits.append(np.asarray(hidden[0, count + len(text) - 1] @ classes.T)[::97])
        return eeg["channel"], np.asarray(codes), np.stack(logits)

    channel, codes, logits = answers(literal_names=True)
    np.testing.assert_array_equal(channel, g["channel_ids"])
    np.testing.assert_allclose(logits, g["answer_logits"], atol=2e-3)  # records are of 16 bits
    assert (codes == g["codes"]).mean() > 0.98
    channel, _, logits = answers(literal_names=False)
    assert {VOCABULARY[e] for e in channel[1]} == {"FZ", "CZ", "P7", "M2"}
    np.testing.assert_allclose(logits[0], g["answer_logits"][0], atol=2e-3)
    assert np.abs(logits[1] - g["answer_logits"][1]).max() > 0.02


@pytest.mark.parametrize(("size", "names"), [("official_b", OLD), ("debug", NEW)])
def test_rows_of_each_model(tmp_path, size, names):
    x = 20 * np.random.default_rng(0).standard_normal((5, 2000))
    part = corpus(tmp_path / "data" / "eeg", [tuh_file(tmp_path / "a_raw.fif", x, (*OLD, "CZ"))])
    record = decode(part.source[0])
    assert record.electrodes == ids(*OLD, "CZ")  # as the file names them

    c = pretrain.get_config(size)
    c.data.update(root=str(tmp_path / "data"), train=("eeg",))
    row = corpora.eeg_rows(c, train=True)[0]
    wanted = ids(*names, "CZ")
    assert tuple(row["channel"][:5]) == wanted

    c = instruct.get_config(size)
    stage = stages.build(c)
    filled = fill_dialogues([Dialogue(record.samples[:, :200], record.electrodes, [5], [])], stage.row_size)
    assert tuple(filled["eeg"]["channel"][:5]) == wanted
    assert row_size(stage, [Size(5, 2)]).literal_names is (size == "official_b")


def test_data_prepared_before_is_read(tmp_path):
    """Records of earlier versions have T7 for T3; their manifests tell names of channels alone."""
    x = np.ones((2, 400), np.float32)
    for literal_names in (True, False):
        record = Record(x, ids("T7", "CZ"), "old", "r")
        folder = tmp_path / str(literal_names)
        told = {"kind": "eeg", "split": "train", "recordings": []}
        shards.write(folder, [(encode(record), entry(record) | {"recording": 0})], told)
        rows = EEGRows([shards.open_shards(folder)], 8, 64, None, literal_names=literal_names)
        assert tuple(rows[0]["channel"][:4]) == ids("T7", "CZ") * 2
    assert recorded_electrodes({"channels": ["EEG T3-REF", "A1", "F7-Fp1"]}) == list(ids("T3", "A1"))
    assert recorded_electrodes({"channels": ["A1"], "electrodes": ["CZ"]}) == list(ids("CZ"))
    assert [shared_id(e) for e in ids(*OLD, "CZ")] == list(ids(*NEW, "CZ"))


def test_one_place_has_one_channel():
    info = mne.create_info(["T3", "T7", "Cz"], 200, "eeg", verbose="error")
    chosen, left_out = choose_channels(mne.io.RawArray(np.zeros((3, 200)), info, verbose="error"))
    assert chosen == {"T3": VOCABULARY.index("T3"), "Cz": VOCABULARY.index("CZ")}
    assert left_out == {"T7": "a second channel at T7, after T3"}


def test_row_sizes_are_planned_without_names():
    assert dataclasses.replace(RowSize(1, 2, 3, 4), literal_names=True).capacity == (1, 2, 3, 4)
