"""Steps that must not be taken, and data that cannot be read: what a run makes of them."""

import json
import logging
import math
import shutil

import jax
import jax.numpy as jnp
import msgpack
import numpy as np
import pytest
from small_data import config

from neurolm_jax import stages, train
from neurolm_jax.data import shards, streams
from neurolm_jax.data.eeg_rows import EEGRows
from neurolm_jax.data.text import BLOCK, TextRows
from neurolm_jax.errors import UserError
from neurolm_jax.stages.restore import restore_weights
from neurolm_jax.training import checkpoint, faults, health, metrics, replay
from neurolm_jax.training.mesh import make_mesh, put_batch
from neurolm_jax.training.state import create_state, make_train_step, prepare


def judged(losses, spike, norms=None):
    """Which steps a plain loop takes, by the rule in words."""
    taken, mean, variance = [], 0.0, 0.0
    for loss, norm in zip(losses, norms or [1.0] * len(losses)):
        good = math.isfinite(loss) and math.isfinite(norm)
        if good and spike and sum(taken) >= health.KNOWN:
            good = loss <= mean + spike * math.sqrt(variance)
        if good:
            share = max(1 - health.DECAY, 1 / (sum(taken) + 1))
            variance = (1 - share) * (variance + share * (loss - mean) ** 2)
            mean += share * (loss - mean)
        taken.append(good)
    return taken, mean, variance


@pytest.mark.parametrize("spike", [0.0, 4.0])
def test_steps_are_judged_as_a_plain_loop_judges_them(spike):
    rng = np.random.default_rng(0)
    losses = (5 + 0.1 * rng.standard_normal(300)).tolist()
    for place, value in {
        3: math.nan,
        50: math.inf,
        60: 90.0,
        150: 90.0,
        200: 90.0,
        201: math.nan,
        202: math.nan,
    }.items():
        losses[place] = value
    norms = [math.inf if i == 70 else 1.0 for i in range(300)]
    state, taken, in_a_row = health.create_health(), [], []
    judge = jax.jit(lambda *arguments: health.judge(*arguments, spike))
    for loss, norm in zip(losses, norms):
        good, state = judge(state, jnp.float32(loss), jnp.float32(norm))
        taken.append(bool(good))
        in_a_row.append(int(state.in_a_row))
    want, mean, variance = judged(losses, spike, norms)
    assert taken == want and not want[150] == bool(spike) and not any(want[i] for i in (3, 50, 70, 201, 202))
    assert in_a_row[201:204] == ([2, 3, 0] if spike else [1, 2, 0])
    assert (int(state.taken), int(state.skipped)) == (sum(want), 300 - sum(want))
    np.testing.assert_allclose([state.mean, state.variance], [mean, variance], rtol=1e-3)
    if not spike:  # nothing but the moving mean, of the first hundred steps a plain one
        early = [loss for loss, good in zip(losses[:90], want) if good]
        assert judged(losses[:90], 0.0, norms)[1] == pytest.approx(np.mean(early))


def poisoned(batch):
    """A batch whose first EEG row is not finite."""
    scale = batch["eeg"]["scale"].copy()
    scale[0] = np.nan
    return batch | {"eeg": batch["eeg"] | {"scale": scale}}


def begun(c, runs):
    stage, mesh = stages.build(c), make_mesh()
    state = create_state(stage, mesh)
    state = state._replace(weights=stage.inherit(state.weights, lambda path: restore_weights(path, mesh)))
    return stage, mesh, state, jax.random.key(c.seed)


@pytest.mark.parametrize("name", ["tokenizer", "pretrain"])
def test_a_step_that_is_not_finite_changes_nothing_but_its_count(small_data, runs, name):
    stage, mesh, state, rng = begun(config(name, small_data, runs), runs)
    batch = streams.Steps(stage.sources(train=True), 1)[0]
    state = prepare(stage, mesh, state, put_batch(mesh, batch), rng)
    before = jax.device_get(state)
    after, measured = make_train_step(stage, mesh)(state, put_batch(mesh, poisoned(batch)), rng)
    assert not np.isfinite(measured["loss"]) and int(after.step) == 1
    jax.tree.map(np.testing.assert_array_equal, (before.weights, before.optimizer), (after.weights, after.optimizer))
    assert (int(after.health.skipped), int(after.health.in_a_row), int(after.health.taken)) == (1, 1, 0)


@pytest.mark.slow
def test_skipped_steps_are_told_with_their_records_and_can_be_replayed(small_data, runs, tmp_path, monkeypatch, caplog):
    """One record is not finite: the steps that read it, and no others, are skipped."""
    root = tmp_path / "data"
    root.symlink_to(copy_of(small_data, tmp_path / "copy"))
    path = root / "scp1" / "recordings" / "train"

    def nan(number, data):
        fields = msgpack.unpackb(data)
        return msgpack.packb(fields | {"scale": [math.nan] * len(fields["scale"])}) if number == 2 else data

    rewrite(path, nan)
    c = config("pretrain", root, runs, steps=8, keep_checkpoints=9)
    with caplog.at_level(logging.WARNING):
        train.train(c, tmp_path / "w")
    batches = streams.Steps(stages.build(c).sources(train=True), 8)
    bad = [i + 1 for i in range(8) if not np.isfinite(batches[i]["eeg"]["scale"]).all()]
    assert 0 < len(bad) < 8  # else this data would show nothing
    told = faults.read(tmp_path / "w")
    assert [line["step"] for line in told] == bad == [line["position"] + 1 for line in told]
    for line in told:
        rows = [any(f"{path}: record 2," in record for record in row) for row in line["records"]["eeg"]]
        assert rows == (~np.isfinite(batches[line["position"]]["eeg"]["scale"]).all(axis=1)).tolist()
    assert f"step {bad[0]} is skipped: loss nan" in caplog.text
    lines = metrics.read(tmp_path / "w")
    assert lines[-1]["skipped_steps"] == len(bad)
    assert [line["step"] for line in lines if "loss" not in line] == bad
    json.loads((tmp_path / "w" / "metrics.jsonl").read_text().split("\n")[0], parse_constant=pytest.fail)
    assert all(np.isfinite(array).all() for array in checkpoint.read_arrays(tmp_path / "w").values())

    # A closer look, at the last of them: from the checkpoint before, with steps between, and nothing written.
    before = sorted(str(p) for p in (tmp_path / "w").rglob("*"))
    found = []
    real = replay.look_at
    monkeypatch.setattr(replay, "look_at", lambda *arguments: found.append(real(*arguments)))
    late = [step for step in bad if step > 2]
    train.train(c, tmp_path / "w", replay=late[-1])
    assert sorted(str(p) for p in (tmp_path / "w").rglob("*")) == before
    loss, records = found[0]["rows"]["eeg"][0]
    assert not np.isfinite(loss) and any(f"{path}: record 2," in record for record in records)
    assert not np.isfinite(found[0]["terms"]["eeg_loss"]) and np.isfinite(found[0]["terms"]["text_loss"])
    assert found[0]["gradients"]
    # Of a good step it finds what was logged then.
    good = next(step for step in range(3, 9) if step not in bad)
    train.train(c, tmp_path / "w", replay=good)
    logged = next(line for line in lines if line["step"] == good)
    assert found[1]["terms"]["loss"] == pytest.approx(logged["loss"], rel=1e-5) and not found[1]["gradients"]
    # The first step has no checkpoint before it: from the beginning.
    train.train(c, tmp_path / "w", replay=1)
    assert found[2]["terms"]["eeg_loss"] == pytest.approx(lines[0].get("eeg_loss", math.nan), rel=1e-5, nan_ok=True)
    with pytest.raises(UserError, match="--replay 9: the run has 8 steps"):
        train.train(c, tmp_path / "w", replay=9)


@pytest.mark.slow
def test_too_many_in_a_row_and_the_run_goes_back_and_on_behind_them(small_data, runs, tmp_path, monkeypatch, caplog):
    """The same as a plain loop over the batches that are left."""
    real = streams.Steps.__getitem__
    monkeypatch.setattr(streams.Steps, "__getitem__", lambda s, i: poisoned(real(s, i)) if i in (3, 4) else real(s, i))
    c = config("pretrain", small_data, runs, steps=7, evaluate_every=0, checkpoint_every=3, keep_checkpoints=9)
    c.faults.in_a_row = 2
    with caplog.at_level(logging.WARNING):
        train.train(c, tmp_path)
    assert "2 steps in a row were skipped: back to step 3, and on behind their data" in caplog.text
    arrays = checkpoint.read_arrays(tmp_path)
    meta = checkpoint.read_meta(tmp_path)
    assert (meta["step"], meta["position"], meta["rollbacks"]) == (7, 9, 1)
    lines = metrics.read(tmp_path)
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5, 6, 7] and lines[-1]["skipped_steps"] == 2
    assert faults.read(tmp_path)[-1] == {"rolled_back_to": 3, "position": 5}
    # A step after it is replayed with the batch that it had then.
    found, real_look = [], replay.look_at
    monkeypatch.setattr(replay, "look_at", lambda *arguments: found.append(real_look(*arguments)))
    shutil.rmtree(tmp_path / "checkpoints" / "6")
    shutil.rmtree(tmp_path / "checkpoints" / "7")
    for step in (4, 6):
        train.train(c, tmp_path, replay=step)
        want = lines[step - 1]["loss"] if step == 6 else math.nan
        assert found[-1]["terms"]["loss"] == pytest.approx(want, rel=1e-5, nan_ok=True)

    stage, mesh, state, rng = begun(c, runs)
    steps, step = streams.Steps(stage.sources(train=True), 20), make_train_step(stage, mesh)
    for position in (0, 1, 2, 5, 6, 7, 8):  # back to step 3, on after position 4
        state, _ = step(state, put_batch(mesh, real(steps, position)), rng)
    for path, leaf in jax.tree_util.tree_leaves_with_path(state.weights):
        np.testing.assert_array_equal(arrays[jax.tree_util.keystr(path, simple=True, separator="/")], leaf)


@pytest.mark.slow
def test_a_run_that_stays_bad_stops_with_the_reason(small_data, runs, tmp_path, monkeypatch):
    real = streams.Steps.__getitem__
    monkeypatch.setattr(streams.Steps, "__getitem__", lambda s, i: poisoned(real(s, i)) if i > 2 else real(s, i))
    c = config("pretrain", small_data, runs, steps=30, evaluate_every=0, checkpoint_every=3)
    c.faults.in_a_row, c.faults.rollbacks = 2, 2
    with pytest.raises(UserError, match="2 steps in a row had to be skipped, after 2 rollbacks"):
        train.train(c, tmp_path)
    told = faults.read(tmp_path)
    assert [line["position"] for line in told if "step" in line] == [3, 4, 5, 6, 7, 8]
    assert [line["position"] for line in told if "step" not in line] == [5, 7]
    assert checkpoint.newest_step(tmp_path, checkpoint.ALL) == 3


def copy_of(root, to):
    return shutil.copytree(root, to, symlinks=False)


def rewrite(path, change):
    """Shards again with some of their records changed."""
    opened = shards.open_shards(path)
    manifest, index = opened.manifest, opened.manifest["index"]
    records = [
        (change(i, opened.source[i]), {key: values[i] for key, values in index.items()})
        for i in range(manifest["records"])
    ]
    made = {"format", "records", "content_hash", "shards", "index"}
    shards.write(path, records, {key: value for key, value in manifest.items() if key not in made})


def damage(path, number):
    """Flip a byte in the middle of a record of the only shard."""
    [file] = path.glob("*.array_record")
    record = shards.open_shards(path).source[number]
    data = bytearray(file.read_bytes())
    data[data.index(record) + len(record) // 2] ^= 1
    file.write_bytes(data)


@pytest.mark.slow
def test_records_that_cannot_be_read_are_left_out_counted_and_named(small_data, runs, tmp_path, caplog):
    root = copy_of(small_data, tmp_path / "data")
    path, text = root / "scp1" / "recordings" / "train", root / "text" / "train"
    [origin] = streams.Steps(stages.build(config("pretrain", root, runs)).sources(train=True), 1).origins(0)["text"][0]
    damage(path, 2)
    damage(text, int(origin.split("record ")[1].split(",")[0]))
    found = []
    for workers in (0, 1):
        c = config("pretrain", root, runs, steps=6)
        c.data.workers = workers
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            train.train(c, tmp_path / str(workers))
        said = [record.getMessage() for record in caplog.records if record.getMessage().startswith("left out: ")]
        assert len(said) == len(set(said)) and any(f"{path}/shard-00000.array_record: record 2 is" in s for s in said)
        found.append(metrics.read(tmp_path / str(workers)))
    # Each is counted once, however often it would have been read.
    steps = streams.Steps(stages.build(c).sources(train=True), 40)
    faults_of = [steps[i].get("faults", []) for i in range(40)]
    assert sum(map(len, faults_of)) > len(set(sum(faults_of, []))) == 2
    for lines in found:
        seen = [len(set(sum(faults_of[: line["step"]], []))) for line in lines]
        assert [line["damaged_records"] for line in lines] == seen and lines[-1]["skipped_steps"] == 0
    assert [line["loss"] for line in found[0]] == [line["loss"] for line in found[1]]

    c.data.damaged = 0
    with pytest.raises(UserError, match=r"1 records could not be read, 0 may be \(config.data.damaged\)"):
        train.train(c, tmp_path / "limit")


def test_a_row_without_a_damaged_record_has_all_others(small_data, tmp_path):
    root = copy_of(small_data, tmp_path / "data")
    path = root / "scp1" / "recordings" / "train"
    whole = EEGRows([shards.open_shards(small_data / "scp1" / "recordings" / "train")], 64, 64, 0)
    damage(path, 2)
    rows = EEGRows([shards.open_shards(path)], 64, 64, 0)
    hit = 0
    for i in range(len(rows)):
        want, got = whole[i], rows[i]
        places = [place for place, origin in enumerate(rows.origins(i), start=1) if ": record 2," in origin]
        assert isinstance(got, streams.Damaged) == bool(places)
        if not places:
            jax.tree.map(np.testing.assert_array_equal, want, got)
            continue
        hit += 1
        assert len(got.faults) == len(places)
        kept, valid = ~np.isin(want["segment"], [0, *places]), got.row["segment"] > 0
        for key in want:
            np.testing.assert_array_equal(got.row[key][valid], want[key][kept])
    assert hit

    # Of text, the next record that can be read stands in.
    folder = root / "text" / "train" if (root / "text" / "train").is_dir() else root / "text"
    plain = TextRows(shards.open_shards(folder), 16, None)
    second = plain[BLOCK // 16]
    damage(folder, 0)
    row = TextRows(shards.open_shards(folder), 16, None)[0]
    assert len(row.faults) == 1 and "record 0 is unreadable" in row.faults[0]
    np.testing.assert_array_equal(row.row, second)


def test_a_line_that_was_not_finished_is_dropped(small_data, runs, tmp_path):
    (tmp_path / "w").mkdir()
    file = tmp_path / "w" / faults.FILE
    file.write_text('{"step": 1, "position": 0, "records": {}}\n{"step": 3, "lo')
    looks = faults.Faults(config("pretrain", small_data, runs), tmp_path / "w", None)
    assert file.read_text() == '{"step": 1, "position": 0, "records": {}}\n' and looks._known == {(1, 0)}
