"""How much data, and which parts of a loss, a run learns from."""

import collections
import pathlib

import jax
import numpy as np
import pytest
from small_data import NAMES, config

from neurolm_jax import stages, train
from neurolm_jax.data.dialogues import DialogueRows, RowSize
from neurolm_jax.data.eeg_rows import EEGRows
from neurolm_jax.data.mixture import PERIOD, Mixture
from neurolm_jax.data.shards import open_shards
from neurolm_jax.data.shares import take
from neurolm_jax.data.streams import Steps
from neurolm_jax.eeg.tasks import load_task
from neurolm_jax.errors import UserError
from neurolm_jax.stages import corpora
from neurolm_jax.training.gradients import loss_and_gradients
from neurolm_jax.training.mesh import make_mesh
from neurolm_jax.training.state import create_state

NOWHERE = pathlib.Path("none")  # earlier stages, which nothing here reads
SHARES = (0.1, 0.3, 0.5, 0.8, 1.0)


@pytest.fixture(scope="module")
def whole(small_data):
    return open_shards(small_data / "scp1" / "recordings" / "train")


def recordings(shards):
    return set(shards.manifest["index"]["recording"])


def test_a_smaller_share_is_part_of_a_larger_one(whole):
    parts = [take(whole, share) for share in SHARES]
    held = [{part.source[i] for i in range(len(part.source))} for part in parts]
    for smaller, larger in zip(held, held[1:]):
        assert smaller < larger
    assert take(whole, 1.0) is whole
    assert len({part.content for part in parts}) == len(parts)
    assert [part.content for part in parts] == [take(whole, share).content for share in SHARES]


def test_a_share_has_its_hours_in_whole_recordings(whole):
    index = whole.manifest["index"]
    samples = collections.Counter()
    for recording, count in zip(index["recording"], index["samples"]):
        samples[recording] += count
    total, longest = sum(samples.values()), max(samples.values())
    for share in SHARES[:-1]:
        part = take(whole, share)
        assert part.manifest["records"] == len(part.source) == len(part.manifest["index"]["samples"])
        assert sum(part.manifest["index"]["samples"]) == sum(samples[r] for r in recordings(part))
        assert share * total <= sum(part.manifest["index"]["samples"]) < share * total + longest


def test_rows_of_a_share_hold_its_records_alone(small_data):
    blink = open_shards(small_data / "blink" / "recordings" / "train")
    part = take(blink, 0.4)
    assert len(recordings(part)) == 1
    rows, every = EEGRows([part], 64, 64, None), EEGRows([blink], 64, 64, None)
    patches = {p.tobytes() for i in range(len(rows)) for p in rows[i]["patches"][rows[i]["segment"] > 0]}
    assert patches < {p.tobytes() for i in range(len(every)) for p in every[i]["patches"][every[i]["segment"] > 0]}


def test_training_reads_the_share_and_validation_everything(small_data):
    for stage in ("tokenizer", "pretrain"):
        c = config(stage, small_data, NOWHERE)
        whole, held_out = (stages.build(c).sources(train=learns)["eeg"][0] for learns in (True, False))
        c.data.share = 0.5
        part, still = (stages.build(c).sources(train=learns)["eeg"][0] for learns in (True, False))
        assert part.amount.distinct < whole.amount.distinct and part.content != whole.content
        assert still.content == held_out.content
    c = config("instruct", small_data, NOWHERE)
    c.data.tasks = ("scp1", "eyes")
    c.data.share = 0.7
    for (_, part), (_, shards) in zip(corpora.learnt_tasks(c), corpora.tasks(c, "train")):
        assert recordings(part) < recordings(shards)
    c.data.tasks = ("blink",)
    c.data.share = 0.4
    with pytest.raises(UserError, match=r"config.data.share: 0.4 of .*blink/windows/train has no window of \w+Blink"):
        train.plan(c)
    for share in (0.0, 1.5, -1.0):
        c.data.share = share
        with pytest.raises(UserError, match="config.data.share: must lie between"):
            train.plan(c)


def counted(rows, count):
    return [int((rows[i]["eeg"] if "eeg" in rows[i] else rows[i])["segment"].astype(bool).sum()) for i in range(count)]


def test_amounts_are_what_rows_hold(small_data):
    eeg = [EEGRows([open_shards(small_data / name / "recordings" / "train")], 64, 64, 0) for name in NAMES]
    tasks = [(load_task(name), open_shards(small_data / name / "windows" / "train")) for name in NAMES]
    for rows in (*eeg, DialogueRows(tasks, RowSize(64, 128, 12), 0)):
        found = counted(rows, len(rows))
        assert rows.amount.distinct == sum(found)
        np.testing.assert_allclose(rows.amount.each, np.mean(found))
    mixed = Mixture(eeg[:2], (3.0, 1.0), 0)
    assert mixed.amount.distinct == sum(rows.amount.distinct for rows in eeg[:2])
    np.testing.assert_allclose(mixed.amount.each, np.mean(counted(mixed, PERIOD)), rtol=0.02)


WEIGHTS = ("frequency_loss_weight", "raw_loss_weight", "domain_loss_weight")


def tokenizer_stage(data, *weights):
    c = config("tokenizer", data, NOWHERE, **dict(zip(WEIGHTS, weights)))
    c.tokenizer.spectrum_head = True
    return stages.build(c)


@pytest.fixture(scope="module")
def prepared(small_data):
    """Weights of a tokenizer before its first step, and that step's batch."""
    stage = tokenizer_stage(small_data)
    weights = create_state(stage, make_mesh()).weights
    batch = Steps(stage.sources(True), 1)[0]
    return jax.jit(stage.prepare)(weights, batch, jax.random.key(0)), batch


@pytest.fixture(scope="module")
def slopes(small_data, prepared):
    """The gradient of each term of the loss alone: term -> tree."""
    weights, batch = prepared
    stage = tokenizer_stage(small_data)

    def terms(params):
        losses = stage.terms(weights._replace(params=params), batch, jax.random.key(0), 0.5, True).losses
        return {name: term.value for name, term in losses.items()}

    found = jax.device_get(jax.jit(jax.jacrev(terms))(weights.params))
    names = "frequency_loss raw_loss feature_spectrum_loss quantizer_loss domain_eeg_loss domain_text_loss"
    assert set(found) == set(names.split())
    return found


def test_gradients_weigh_the_losses_as_the_config_says(small_data, prepared, slopes):
    stage = tokenizer_stage(small_data, 0.3, 0.0, 2.0)
    run = jax.jit(lambda weights, batch: loss_and_gradients(stage, weights, batch, jax.random.key(0), 0.5, 1)[0])
    factors = dict.fromkeys(slopes, 1.0) | {"frequency_loss": 0.3, "raw_loss": 0.0}
    factors |= {"domain_eeg_loss": 2.0, "domain_text_loss": 2.0}
    want = jax.tree.map(lambda *each: sum(f * one for f, one in zip(factors.values(), each)), *map(slopes.get, factors))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-6), run(*prepared), want)


@pytest.mark.parametrize(
    ("values", "still"),
    [
        ((0.0, 1.0, 1.0), {"decoder_frequency", "head_frequency"}),
        ((1.0, 0.0, 1.0), {"decoder_raw", "head_raw"}),
        ((1.0, 1.0, 0.0), {"domain_hidden", "domain_output"}),
        ((1.0, 1.0, 1.0), set()),
    ],
)
def test_a_loss_without_weight_teaches_nothing(small_data, slopes, values, still):
    stage = tokenizer_stage(small_data, *values)
    learnt = [slopes[name] for name in slopes if stage.loss_weight(name)]
    moved = {
        part for tree in learnt for part in tree if any(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(tree[part]))
    }
    assert set(slopes["raw_loss"]) - moved == still
