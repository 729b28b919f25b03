"""What MNE reads loosely comes out right in a corpus and in a task: rates, gaps, annotations, units."""

import dataclasses
import warnings

import mne
import numpy as np
import odd_recordings as odd
import pytest
from small_corpora import SETTINGS, noise, outcomes

from neurolm_jax.corpus import build
from neurolm_jax.corpus.labelled import write_task
from neurolm_jax.corpus.task_windows import CROSSES_JUMP
from neurolm_jax.data.eeg_rows import find_runs
from neurolm_jax.data.shards import open_shards
from neurolm_jax.eeg.electrodes import electrode_id
from neurolm_jax.eeg.opening import open_raw
from neurolm_jax.eeg.preprocessing import preprocess
from neurolm_jax.eeg.reading import corrected, dropped_channels, warnings_by_kind
from neurolm_jax.eeg.records import decode
from neurolm_jax.eeg.tasks import Opened, Recording, Task
from neurolm_jax.eeg.tasks.readers import duration_of, read_raw, tiled
from neurolm_jax.eeg.timeline import timeline
from neurolm_jax.errors import UserError

RATE, JUMP = 250, 40  # Hz; second of the jump of time


def records_of(folder):
    opened = open_shards(folder)
    return [decode(opened.source[i]) for i in range(len(opened.source))], opened.manifest


def corpus(tmp_path, *files):
    build.build(files, tmp_path / "corpus", SETTINGS, "c")
    return records_of(tmp_path / "corpus")


def task_of(file, seconds=7, windows=None, channels=odd.NAMES):
    """A task of one recording, cut into windows of two labels in turn."""

    def opened():
        raw = read_raw(file)
        found = windows or tiled(duration_of(raw), seconds, "a")
        return Opened(raw, [w._replace(label="ab"[i % 2]) for i, w in enumerate(found)])

    def recordings(path):
        yield Recording(file.name, "s", "train", opened)

    answers = {"a": "yes", "b": "no"}
    return Task("t", "Is it?", answers, seconds, SETTINGS, recordings, channels=tuple(channels))


def prepared(task, tmp_path):
    """Windows and records of the training part, and the only recording's entry in the manifest."""
    write_task(task, tmp_path, tmp_path / "task")
    windows, manifest = records_of(tmp_path / "task" / "windows" / "train")
    return windows, records_of(tmp_path / "task" / "recordings" / "train")[0], manifest["recordings"][0]


# Channels of several rates


def test_electrodes_of_a_net_outnumber_slower_channels_of_other_kinds(tmp_path):
    """Labels that tell electrodes only together: E1 to E32, beside forty channels at half their rate."""
    x, other = noise(1, seconds=10, rate=200, channels=32), noise(2, seconds=10, rate=100, channels=40)
    eeg = [(f"E{i + 1}", 200, row) for i, row in enumerate(x)]
    odd.write_rates(tmp_path / "x.edf", eeg + [(f"AUX{i}", 100, row) for i, row in enumerate(other)])
    raw = open_raw(tmp_path / "x.edf")
    assert raw.info["sfreq"] == 200 and raw.ch_names == [name for name, *_ in eeg]
    plain = mne.io.read_raw_edf(tmp_path / "x.edf", include=raw.ch_names, verbose="error")
    np.testing.assert_array_equal(raw.get_data(start=333, stop=777), plain.get_data(start=333, stop=777))


@pytest.mark.parametrize(
    ("rate", "other_rate", "record_seconds"),
    [(200, 1000, 1), (100, 512, 1), (256, 1, 1), (200, 500, 2.5), (128, 1000, 0.25), (500, 200, 0.1), (250, 256, 4)],
)
def test_eeg_is_read_at_its_own_rate_whatever_lies_beside_it(tmp_path, rate, other_rate, record_seconds):
    x = noise(1, seconds=20, rate=rate, channels=3)
    other = noise(2, seconds=20, rate=other_rate, channels=1)[0]
    eeg = [(name, rate, row) for name, row in zip(odd.NAMES, x)]
    odd.write_rates(tmp_path / "alone.edf", eeg, record_seconds)
    odd.write_rates(tmp_path / "mixed.edf", [eeg[0], ("ECG", other_rate, other), *eeg[1:]], record_seconds)
    alone, mixed = (open_raw(tmp_path / f"{name}.edf") for name in ("alone", "mixed"))
    assert mixed.info["sfreq"] == rate and mixed.ch_names == list(odd.NAMES)
    assert dropped_channels(mixed) == {"ECG": f"sampled at {other_rate} Hz, the EEG at {rate} Hz"}
    for begin, end in ((0, 3 * rate), (77, 5 * rate + 13), (7 * rate + 1, 20 * rate)):  # in the middle of records
        plain = mne.io.read_raw_edf(tmp_path / "alone.edf", verbose="error").get_data(start=begin, stop=end)
        np.testing.assert_array_equal(mixed.get_data(start=begin, stop=end), plain)
        np.testing.assert_array_equal(alone.get_data(start=begin, stop=end), plain)
    # A raw that a user opened, cropped and renamed without knowing.
    own = mne.io.read_raw_edf(tmp_path / "mixed.edf", verbose="error").crop(4, 12, include_tmax=False)
    own = corrected(own.rename_channels({"Fp1": "Fp2"}).pick(["Fp2", "ECG", "T3"]))
    cut = alone.get_data(["Fp1", "T3"], 4 * rate, 12 * rate)
    assert own.ch_names == ["Fp2", "T3"] and np.array_equal(own.get_data(), cut)
    records = {}
    for name in ("alone", "mixed"):
        build.build([tmp_path / f"{name}.edf"], tmp_path / f"{name}.out", SETTINGS, "c")
        records[name], manifest = records_of(tmp_path / f"{name}.out")
        assert manifest["recordings"][0]["rate"] == rate
    for first, second in zip(records["alone"], records["mixed"], strict=True):
        np.testing.assert_array_equal(first.samples, second.samples)
    in_task = prepared(task_of(tmp_path / "mixed.edf"), tmp_path)[1]
    for first, second in zip(records["alone"], in_task, strict=True):
        np.testing.assert_array_equal(first.samples, second.samples)


def test_the_rate_that_counts_is_that_of_the_eeg(tmp_path):
    eeg = [(name, 50, row) for name, row in zip(odd.NAMES, noise(1, rate=50))]
    odd.write_rates(tmp_path / "slow.edf", [*eeg, ("ECG", 512, noise(2, rate=512, channels=1)[0])])
    with pytest.raises(UserError, match="slow.edf: sampled at 50 Hz; EEG needs 64 Hz or more"):
        build.build([tmp_path / "slow.edf"], tmp_path / "out", SETTINGS, "c")
    with pytest.raises(UserError, match="sampled at 50 Hz"):
        write_task(task_of(tmp_path / "slow.edf"), tmp_path, tmp_path / "task")
    loaded = mne.io.read_raw_edf(tmp_path / "slow.edf", preload=True, verbose="error")
    counts = {}
    with warnings_by_kind(counts), pytest.raises(UserError, match="sampled at 50 Hz"):
        preprocess(loaded, SETTINGS, "r")
    assert any("open the file with preload=False" in kind for kind in counts)


def test_an_electrode_of_another_rate_than_most_is_told(tmp_path):
    x = noise(1, seconds=20, rate=200, channels=2)
    odd.write_rates(tmp_path / "x.edf", [("Fp1", 200, x[0]), ("C3", 200, x[1]), ("T3", 100, noise(2, rate=100)[0])])
    _, manifest = corpus(tmp_path, tmp_path / "x.edf")
    reason = {"T3": "sampled at 100 Hz, the EEG at 200 Hz"}
    assert manifest["recordings"][0]["left_out"] == reason
    assert prepared(task_of(tmp_path / "x.edf"), tmp_path)[2]["left_out"] == reason


# Jumps of time


def write_joined(file, x, rate):
    first, second = (odd.array_raw(part, rate) for part in np.split(x, [JUMP * rate], axis=1))
    mne.concatenate_raws([first, second], verbose="error").save(file, fmt="double", verbose="error")


def records_until(jump):
    return [*range(jump), *(range(jump + 25, 95 + 25))]


JUMPS = {
    "discontinuous.edf": (
        lambda file, x, rate: odd.write_discontinuous(file, x, rate, records_until(JUMP)),
        "discontinuous records",
    ),
    "discontinuous.bdf": (
        lambda file, x, rate: odd.write_discontinuous(file, x, rate, records_until(JUMP)),
        "discontinuous records",
    ),
    "status.bdf": (lambda file, x, rate: odd.write_status(file, x, rate, [0, JUMP * rate]), "new epoch"),
    "boundary.set": (
        lambda file, x, rate: odd.write_eeglab(
            file, x, rate, [("go", 100.0, 0.0), ("boundary", JUMP * rate + 0.5, 3000.0)]
        ),
        "boundary",
    ),
    "segment.vhdr": (
        lambda file, x, rate: odd.write_brainvision(
            file, x, rate, [("New Segment", "", 1), ("New Segment", "", JUMP * rate + 1), ("Stimulus", "S  1", 9)]
        ),
        "new segment",
    ),
    "joined_raw.fif": (write_joined, "boundary"),
}


@pytest.mark.parametrize("name", JUMPS)
def test_nothing_crosses_a_jump_of_time(tmp_path, name):
    write, kind = JUMPS[name]
    x = noise(1, seconds=95, rate=RATE, channels=3)
    x[:, JUMP * RATE :] += 300 * (-1) ** np.arange(3)[:, None]  # what a filter would smear over the jump
    write(tmp_path / name, x, RATE)
    parts = [odd.filtered(part, RATE, dataclasses.asdict(SETTINGS)) for part in np.split(x, [JUMP * RATE], axis=1)]
    records, manifest = corpus(tmp_path, tmp_path / name)
    [entry] = manifest["recordings"]
    assert (entry["jumps"], entry["outcome"], entry["dropped_seconds"]) == ({kind: 1}, "used", 0)
    runs = find_runs(manifest["index"])
    assert runs.samples.tolist() == [JUMP * 200, 55 * 200]
    got = np.hstack([record.samples for record in records])
    assert [r.start for r in records] == [0, 16, 32, 40, 56, 72, 88]
    np.testing.assert_allclose(got, np.hstack(parts), atol=0.1)
    # The same in a task, whose windows last seven seconds.
    windows, in_task, entry = prepared(task_of(tmp_path / name), tmp_path)
    assert entry["jumps"] == {kind: 1} and entry["left_out_windows"] == {CROSSES_JUMP: 1}
    assert [w.start for w in windows] == [7.0 * i for i in range(13) if i != 5]
    np.testing.assert_allclose(windows[6].samples, parts[1][:, 9 * 200 : 16 * 200], atol=0.1)
    for first, second in zip(records, in_task, strict=True):
        np.testing.assert_array_equal(first.samples, second.samples)


def test_skipped_buffers_are_no_eeg(tmp_path):
    x = noise(1, seconds=95, rate=RATE, channels=3)
    raw = odd.array_raw(x, RATE, [(30.0, 20.0, "BAD_ACQ_SKIP")])
    raw.save(tmp_path / "x_raw.fif", fmt="double", buffer_size_sec=1.0, verbose="error")
    records, manifest = corpus(tmp_path, tmp_path / "x_raw.fif")
    [entry] = manifest["recordings"]
    assert entry["jumps"] == {"bad_acq_skip": 1} and entry["dropped_seconds"] == 20
    settings = dataclasses.asdict(SETTINGS)
    want = [odd.filtered(part, RATE, settings) for part in (x[:, : 30 * RATE], x[:, 50 * RATE :])]
    np.testing.assert_allclose(np.hstack([r.samples for r in records]), np.hstack(want), atol=0.1)
    windows, _, entry = prepared(task_of(tmp_path / "x_raw.fif", seconds=10), tmp_path)
    assert [w.start for w in windows] == [0, 10, 20, 50, 60, 70, 80] and entry["left_out_windows"] == {CROSSES_JUMP: 2}


def test_annotations_of_a_discontinuous_file_are_about_its_samples(tmp_path):
    x = noise(1, seconds=95, rate=RATE, channels=3)
    told = [(10.0, 2.0, "early"), (50.0, None, "in the gap"), (70.5, 3.0, "BAD late"), (118.0, 1.0, "last")]
    odd.write_discontinuous(tmp_path / "x.edf", x, RATE, records_until(JUMP), told)
    with warnings_by_kind({}):  # MNE misses the last one
        raw = open_raw(tmp_path / "x.edf")
    where = {a["description"]: (float(a["onset"]), float(a["duration"])) for a in raw.annotations}
    assert where["early"] == (10, 2) and where["in the gap"] == (40, 0) and where["BAD late"] == (45.5, 3)
    assert where["last"] == (93, 1) and where["EDGE discontinuous records"] == (40, 0)
    assert timeline(raw).spans == ((0, 40 * RATE), (40 * RATE, 95 * RATE))
    assert timeline(raw.copy().crop(30, 90)).spans == ((0, 10 * RATE), (10 * RATE, 60 * RATE + 1))
    assert corrected(raw) is raw


@pytest.mark.parametrize("dated", [False, True])
def test_spans_of_a_cropped_recording(dated):
    marks = [(40.0, 0.0, "EDGE boundary"), (50.0, 4.0, "bad_acq_skip"), (60.0, 1.5, "Bad blink"), (61.0, 1.0, "good")]
    raw = odd.array_raw(noise(1, seconds=95, rate=200), 200, marks)
    raw = raw.set_meas_date(1_000_000_000) if dated else raw
    found = timeline(raw.crop(30, 90, include_tmax=False))
    assert found.spans == ((0, 2000), (2000, 4000), (4800, 12_000))
    assert found.bad == ((30.0, 31.5, ()),) and found.jumps == {"boundary": 1, "bad_acq_skip": 1}


# Annotations


@pytest.mark.parametrize("text", ["BAD_muscle", "bad artefact", "Bad"])
def test_what_annotations_call_bad_is_cut_out_to_the_sample(tmp_path, text):
    x = noise(1, seconds=60, rate=RATE, channels=3)
    odd.array_raw(x, RATE, [(20.3, 2.37, text), (41.0, 1.0, "T1")]).save(
        tmp_path / "x_raw.fif", fmt="double", verbose="error"
    )
    records, manifest = corpus(tmp_path, tmp_path / "x_raw.fif")
    want = odd.filtered(x, RATE, dataclasses.asdict(SETTINGS))
    want = np.hstack([want[:, :4060], want[:, 4534:]])
    np.testing.assert_allclose(np.hstack([r.samples for r in records]), want, atol=0.1)
    assert find_runs(manifest["index"]).samples.tolist() == [4060, 12_000 - 4534]
    [entry] = manifest["recordings"]
    assert entry["bad_channel_seconds"] == {"annotated": 7.11} and entry["dropped_seconds"] == 2.37
    windows, in_task, entry = prepared(task_of(tmp_path / "x_raw.fif", seconds=4), tmp_path)
    assert entry["left_out_windows"] == {"marked BAD": 1} and 20.0 not in [w.start for w in windows]
    assert len(windows) == 14
    np.testing.assert_allclose(np.hstack([r.samples for r in in_task]), want, atol=0.1)


def test_an_annotation_of_one_channel_costs_that_channel(tmp_path):
    raw = odd.array_raw(noise(1, seconds=60, rate=RATE), RATE)
    raw.set_annotations(mne.Annotations([8.0], [8.0], ["BAD"], ch_names=[["C3"]]))
    raw.save(tmp_path / "x_raw.fif", fmt="double", verbose="error")
    windows, _, entry = prepared(task_of(tmp_path / "x_raw.fif", seconds=4), tmp_path)
    assert [len(w.electrodes) for w in windows] == [3, 3, 2, 2, *[3] * 11] and entry["left_out_windows"] == {}
    assert entry["marked_windows"] == {"annotated": 2}


# Scales and units


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"physical_min": "5", "physical_max": "5"}, "physical minimum and maximum are both 5"),
        ({"digital_min": "0", "digital_max": "0"}, "digital minimum and maximum are both 0"),
    ],
)
def test_a_channel_without_a_scale_is_left_out(tmp_path, fields, reason):
    odd.write_rates(tmp_path / "x.edf", [(name, RATE, x) for name, x in zip(odd.NAMES, noise(1, rate=RATE))])
    for field, text in fields.items():
        odd.edit_header(tmp_path / "x.edf", field, 1, text)
    records, manifest = corpus(tmp_path, tmp_path / "x.edf")
    assert reason in manifest["recordings"][0]["left_out"]["C3"]
    assert records[0].electrodes == (electrode_id("Fp1"), electrode_id("T3"))
    assert any("ange is not defined" in k or "caling factor" in k for k in manifest["recordings"][0]["warnings"])
    assert reason in prepared(task_of(tmp_path / "x.edf"), tmp_path)[2]["left_out"]["C3"]
    for channel in (0, 2):
        for field, text in fields.items():
            odd.edit_header(tmp_path / "x.edf", field, channel, text)
    with pytest.raises(UserError, match="no electrode can be used"):
        build.build([tmp_path / "x.edf"], tmp_path / "none", SETTINGS, "c")


@pytest.mark.parametrize("unit", ["uV", "UV", "µV", ".V", "?V", "microV"])
def test_microvolts_in_any_spelling(tmp_path, unit):
    x = noise(1, rate=RATE)
    odd.write_rates(tmp_path / "x.edf", [(name, RATE, row) for name, row in zip(odd.NAMES, x)])
    odd.edit_header(tmp_path / "x.edf", "dimension", 0, unit)
    np.testing.assert_allclose(read_raw(tmp_path / "x.edf").get_data() * 1e6, x[:3], atol=0.02)


def test_millivolts_among_microvolts(tmp_path):
    x = noise(1, rate=RATE)
    odd.write_rates(tmp_path / "x.edf", [(name, RATE, row) for name, row in zip(odd.NAMES, x)])
    for field, text in {"dimension": "mV", "physical_min": "-0.6", "physical_max": "0.6"}.items():
        odd.edit_header(tmp_path / "x.edf", field, 1, text)
    np.testing.assert_allclose(read_raw(tmp_path / "x.edf").get_data() * 1e6, x[:3], atol=0.02)


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1", "utf-16"])
def test_the_sidecar_tells_a_unit_that_the_header_does_not(tmp_path, encoding):
    x, file = noise(1, rate=RATE), tmp_path / "sub-1_task-x_eeg.edf"
    odd.write_rates(file, [(name, RATE, row) for name, row in zip(odd.NAMES, x)])
    odd.edit_header(file, "dimension", 0, "")
    counts = {}
    with warnings_by_kind(counts):
        assert read_raw(file).get_data()[0].std() > 1  # volts, so far
    assert any("name the unit in channels.tsv" in kind for kind in counts)
    table = "name\ttype\tunits\nFp1\tEEG\tµV\nC3\tEEG\tmV\nT3\tEEG\tuV\n"
    (tmp_path / "sub-1_task-x_channels.tsv").write_text(table, encoding=encoding)
    counts = {}
    with warnings_by_kind(counts):
        np.testing.assert_allclose(read_raw(file).get_data() * 1e6, x[:3], atol=0.02)
    assert counts == {"channels.tsv tells the unit mV, the header uV; the header's is used": 1}


@pytest.mark.parametrize(("scale", "far"), [(1e-3, "below"), (1e3, "above"), (1e6, "above")])
def test_a_channel_on_another_scale_is_left_out(tmp_path, scale, far):
    x = noise(1, seconds=60, rate=RATE, channels=3)
    x[1] *= scale
    odd.array_raw(x, RATE).save(tmp_path / "x_raw.fif", fmt="double", verbose="error")
    _, manifest = corpus(tmp_path, tmp_path / "x_raw.fif")
    _, _, entry = prepared(task_of(tmp_path / "x_raw.fif"), tmp_path)
    for found in (manifest["recordings"][0], entry):
        assert f"far {far} the other channels'" in found["left_out"]["C3"] and found["channels"] == ["Fp1", "T3"]


def test_windows_that_are_no_eeg_are_left_out_of_a_task_and_counted(tmp_path):
    x = noise(1, seconds=120, rate=RATE, channels=3)
    x[0, 9 * RATE : 9 * RATE + 5] = 3.2e7
    x[1, 60 * RATE : 84 * RATE] = x[1, 60 * RATE]
    odd.array_raw(x, RATE).save(tmp_path / "x_raw.fif", fmt="double", verbose="error")
    windows, _, entry = prepared(task_of(tmp_path / "x_raw.fif", seconds=2), tmp_path)
    dead = [w.start for w in windows if electrode_id("C3") not in w.electrodes]
    assert dead == [60.0 + 2 * i for i in range(12)]
    assert max(np.abs(w.samples).max() for w in windows) < 3000 and 8.0 not in [w.start for w in windows]
    assert entry["marked_windows"]["flat"] == 12 and entry["left_out_windows"]["huge"] >= 1
    assert entry["bad_channel_seconds"]["flat"] == 24 and entry["outcome"] == "used"


@pytest.mark.parametrize(("scale", "word"), [(1e-5, "far below"), (1e5, "far above")])
def test_a_task_refuses_wrong_units_as_a_corpus_does(tmp_path, scale, word):
    odd.array_raw(scale * noise(1, rate=RATE), RATE, names=(*odd.NAMES, "O1")).save(
        tmp_path / "x_raw.fif", fmt="double", verbose="error"
    )
    with pytest.raises(UserError, match=f"x_raw.fif: amplitudes .* {word} .*; correct the header"):
        write_task(task_of(tmp_path / "x_raw.fif"), tmp_path, tmp_path / "task")


# Warnings


def test_warnings_are_counted_by_kind():
    counts = {}
    with warnings_by_kind(counts):
        for number in range(3):
            warnings.warn(f"channel {number} of /data/{number}.edf is odd\nand more", stacklevel=1)
        warnings.warn("another", stacklevel=1)
    assert counts == {"channel N of FILE is odd": 3, "another": 1}


def test_warnings_of_mne_are_in_the_manifests(tmp_path):
    odd.write_rates(tmp_path / "x.edf", [(name, RATE, x) for name, x in zip(odd.NAMES, noise(1, rate=RATE))])
    data = tmp_path / "x.edf"
    data.write_bytes(data.read_bytes()[: -2 * 3 * RATE * 4])  # the last records are not there
    _, manifest = corpus(tmp_path, data)
    entry = prepared(task_of(data), tmp_path)[2]
    for found in (manifest["recordings"][0], entry):
        assert [k for k in found["warnings"] if k.startswith("Number of records from the header does not match")]
    assert outcomes(manifest) == {"x.edf": None}


def test_flags_of_a_signal_are_where_its_faults_are():
    x = noise(3, seconds=30, rate=RATE)
    x[2, 5 * RATE : 8 * RATE] = 0
    signal = preprocess(odd.array_raw(x, RATE), SETTINGS, "r")
    assert signal.spans == ((0, 6000),) and signal.flags.shape == signal.samples.shape
    assert np.flatnonzero(signal.flags[2]).tolist() == list(range(1000, 1600)) and not signal.flags[:2].any()


@pytest.mark.parametrize(("rate", "samples"), [(256, 7687), (128, 3901), (1000, 30_003), (249.9, 7501)])
def test_spans_that_begin_between_two_samples(rate, samples):
    x = noise(3, seconds=1, rate=samples)
    seams = [round(seconds * rate) for seconds in (4.003, 4.011, 7.1, 13.333)]
    marks = [(sample / rate, 0.0, "EDGE boundary") for sample in seams]
    signal = preprocess(odd.array_raw(x, rate, marks), SETTINGS, "r")
    parts = zip(signal.spans, [0, *seams[1:]], [seams[0], *seams[2:], samples], strict=True)
    for (first, last), begin, end in parts:
        assert abs(first - begin / rate * 200) <= 0.5 and abs(last - end / rate * 200) <= 1.5
        want = odd.filtered(x[:3, begin:end], rate, dataclasses.asdict(SETTINGS))[:, : last - first]
        np.testing.assert_allclose(signal.samples[:, first:last], want, atol=0.01)
    assert (signal.flags[:, signal.spans[0][1] : signal.spans[1][0]] > 0).all()
