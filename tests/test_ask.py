"""Questions about recordings: as in evaluation, from any montage, and what is refused."""

import dataclasses
import json
import sys

import mne
import numpy as np
import pytest

import neurolm_jax
from neurolm_jax import ask
from neurolm_jax.data.shards import open_shards
from neurolm_jax.eeg.tasks import load_task
from neurolm_jax.errors import UserError
from neurolm_jax.inference.measures import with_temperature
from neurolm_jax.inference.scoring import answer_probabilities
from neurolm_jax.inference.windows import read_windows
from neurolm_jax.reporting import answers as reporting
from neurolm_jax.training import checkpoint


@pytest.fixture(scope="module")
def model(runs):
    return neurolm_jax.load(runs / "instruct")


@pytest.fixture(scope="module")
def blink(recordings):
    """The first test recording, as a user has it."""
    found = [r for r in load_task("blink").recordings(recordings / "Blink") if r.split == "test"]
    return found[0].open().raw


def noise(names, seconds=12.0, rate=256.0, deviation=20e-6, kinds="eeg"):
    info = mne.create_info(names, rate, kinds, verbose="error")
    samples = deviation * np.random.default_rng(0).standard_normal((len(names), round(seconds * rate)))
    return mne.io.RawArray(samples, info, verbose="error")


def test_answers_are_those_of_evaluation(model, blink, small_data):
    windows = read_windows([(load_task("blink"), open_shards(small_data / "blink" / "windows" / "test"))])["blink"]
    want = answer_probabilities(model._model, windows)[:6]
    before = blink.get_data().copy()
    found = model.ask(blink, "Are the eye blinks in this EEG segment short or long?")
    np.testing.assert_array_equal(blink.get_data(), before)  # left as it was
    assert found.task == "blink" and found.choices == ("Short", "Long") and found.mains == 60
    np.testing.assert_allclose(found.onsets, 2.0 * np.arange(50))
    # Prepared windows are rounded to int16.
    np.testing.assert_allclose(found.probabilities[:6], want, atol=5e-3)
    np.testing.assert_allclose(sum(found.overall.values()), 1)
    assert found.answer == found.choices[int(found.probabilities.mean(0).argmax())]
    assert found.texts[0] == found.choices[int(found.probabilities[0].argmax())]


def test_a_task_is_named_by_its_questions_and_by_its_name(model, blink):
    for question in ("blink", " are the EYE blinks in this EEG segment short or long ", load_task("blink").wordings[0]):
        assert model.ask(blink, question, every=25).task == "blink"
    found = model.ask(blink, load_task("blink").wordings[1], every=25)
    assert found.question == f"Question: {load_task('blink').wordings[1]} Answer:"
    assert set(model.questions) == {"blink", "scp1", "eyes"}


def test_windows_may_overlap(model, blink):
    found = model.ask(blink, "blink", every=12.5)
    np.testing.assert_allclose(found.onsets, 12.5 * np.arange(8))
    plain = model.ask(blink, "blink")
    np.testing.assert_allclose(found.probabilities[[0, 4]], plain.probabilities[[0, 25]], atol=1e-5)
    assert model.ask(blink, "blink", every=1e308).onsets.tolist() == [0]


def test_a_free_question_is_answered_in_text(model, blink):
    found = model.ask(blink, "What do you see?", window=5)
    assert found.task is None and found.probabilities is None and found.answer is None and found.overall == {}
    assert len(found.texts) == 20 and all(isinstance(text, str) for text in found.texts)
    assert found.question == "Question: What do you see? Answer:"
    json.dumps(found.to_dict(), allow_nan=False)


def test_one_known_electrode_is_enough_and_others_are_told(model):
    raw = noise(["X1", "Fp1", "EEG Fp1-REF", "Cz", "Pz", "HEOG"], kinds=["eeg"] * 5 + ["eog"])
    raw.info["bads"] = ["Pz"]
    found = model.ask(raw, "eyes")
    assert found.channels == ("Fp1", "Cz") and len(found.onsets) == 12
    assert found.left_out == {
        "X1": "no electrode of the vocabulary",
        "EEG Fp1-REF": "a second channel at FP1, after Fp1",
        "Pz": "marked bad",
        "HEOG": "no electrode of the vocabulary",
    }
    alone = model.ask(raw.copy().pick(["Cz"]), "eyes")
    assert alone.channels == ("Cz",) and alone.notes == ()


def test_electrodes_are_those_of_the_task_where_it_has_any(model, monkeypatch):
    task = dataclasses.replace(load_task("blink"), channels=("AF7", "AF8"))
    monkeypatch.setattr(model, "_tasks", [task])
    found = model.ask(noise(["AF8", "Cz"]), "blink")
    assert found.channels == ("AF8",) and found.left_out == {"Cz": "not among the electrodes of the task"}
    other = model.ask(noise(["Cz", "Pz"]), "blink")
    assert other.channels == ("Cz", "Pz") and "none of its electrodes" in other.notes[0]


def test_electrodes_of_a_cap_and_against_the_midline(model):
    found = model.ask(noise([f"A{i}" for i in range(1, 17)]), "eyes")
    assert len(found.channels) == 16 and found.notes == ()
    assert "measured against" in model.ask(noise(["EEG Fpz-Cz", "EEG Pz-Oz"]), "eyes").notes[-1]
    with pytest.raises(UserError, match="r.edf: only 1 of its 8 EEG channels.*--rename FILE"):
        model.ask(noise([*(f"Ch{i}" for i in range(7)), "Cz"]), "eyes", name="r.edf")


NO_STEPS = (0.0, -1.0, 0.004, float("inf"), float("nan"))


@pytest.mark.parametrize(
    ("raw", "options", "message"),
    [
        (noise(["Cz"], 1.5), {}, "r.edf: too short, 1.5 s; a window has 2 s"),
        (noise(["X1", "ECG"]), {}, "r.edf: none of its channels is a known electrode"),
        (noise(["Cz"], 40, rate=0.5), {}, "r.edf: sampled at 0.5 Hz; EEG needs 64 Hz or more"),
        (noise(["Cz"], 0.5), {}, "r.edf: too short, 0.5 s"),
        (noise(["Cz"], deviation=20e-12), {}, "volts are stored as microvolts"),
        *((noise(["Cz"]), {"every": every}, f"every: want 0.005 s or more, not {every:g}") for every in NO_STEPS),
        (noise(["Cz"]), {"window": 5}, "window: blink is asked of windows of 2 s, not 5"),
        (noise(["Cz"]), {"question": "What?", "window": 65}, "window: must be whole seconds from 1 to 64, not 65"),
        (noise(["Cz"]), {"question": "What?", "window": 2.5}, "window: must be whole seconds from 1 to 64, not 2.5"),
    ],
)
def test_bad_input_is_named(model, raw, options, message):
    with pytest.raises(UserError, match=message):
        model.ask(raw, options.pop("question", "blink"), name="r.edf", **options)


def test_windows_keep_to_spans_and_bad_ones_are_marked(model):
    raw = noise(["Fp1", "Cz", "O2"], 30)
    raw._data[2, 256 * 10 :] = 1e-6  # came off
    second = raw.copy().crop(9.5).pick(["Fp1", "Cz"])
    raw.set_annotations(mne.Annotations([9.5, 20.0], [0.0, 1.0], ["EDGE boundary", "bad muscle"]))
    found = model.ask(raw, "blink")
    np.testing.assert_allclose(found.onsets, [0, 2, 4, 6, *(9.5 + 2 * np.arange(10))])
    assert found.channels == ("Fp1", "Cz") and found.left_out == {"O2": "bad in more than 50% of the recording"}
    marked = [i for i, marks in enumerate(found.marks) if marks]
    assert [found.onsets[i] for i in marked] == [19.5] and found.marks[marked[0]] == ("annotated",)
    np.testing.assert_allclose(found.probabilities[4:], model.ask(second, "blink").probabilities, atol=1e-4)
    fit = np.delete(found.probabilities, marked, axis=0)
    np.testing.assert_allclose(list(found.overall.values()), fit.mean(axis=0))
    assert found.to_dict()["windows"][marked[0]]["marks"] == ["annotated"]
    assert found.notes == (
        "1 of 14 windows are partly bad: marked BAD in 1",
        "time jumps within the recording (boundary 1); no window crosses a jump",
    )
    with pytest.raises(UserError, match="nowhere 2 s without a jump of time"):
        model.ask(noise(["Fp1"], 3).set_annotations(mne.Annotations([1.5], [0.0], ["EDGE"])), "blink")


def test_a_truncated_file_is_named(model, tmp_path):
    file = tmp_path / "r_raw.fif"
    noise(["Cz"], 60).save(file, verbose="error")
    file.write_bytes(file.read_bytes()[:-20_000])
    raw = mne.io.read_raw(file, verbose="error")
    with pytest.raises(UserError, match="r_raw.fif: cannot be read"):
        model.ask(raw, "blink", name=file.name)


def test_temperatures_of_an_evaluation_are_used(model, runs, blink, tmp_path):
    (tmp_path / "w").mkdir()
    (tmp_path / "w" / "checkpoints").symlink_to(runs / "instruct" / "checkpoints")
    tasks = {"blink": {"calibration": {"temperature": 3.0}}, "eyes": {"calibration": None}}
    file = tmp_path / "w" / "evaluation.json"
    written = checkpoint.written_at(runs / "instruct")
    file.write_text(json.dumps({"tasks": tasks, "split": "test", "step": 4, "checkpoint": written}))
    found = neurolm_jax.load(tmp_path / "w").ask(blink, "blink")
    plain = model.ask(blink, "blink").probabilities
    np.testing.assert_allclose(found.probabilities, with_temperature(plain, 3.0), atol=1e-6)
    assert found.temperature == 3.0 and not np.allclose(found.probabilities, plain)
    file.write_text(json.dumps({"tasks": tasks, "split": "test", "step": 4, "checkpoint": "another of as many steps"}))
    other = neurolm_jax.load(tmp_path / "w").ask(blink, "blink")
    np.testing.assert_array_equal(other.probabilities, plain)
    assert other.notes == (f"probabilities are not calibrated: {file} is of another checkpoint; run evaluate again",)
    file.write_text("{")
    with pytest.raises(UserError, match="evaluation.json: cannot be read"):
        neurolm_jax.load(tmp_path / "w")


def test_the_mean_of_a_window_is_no_matter_where_training_removes_it(model):
    raw = noise(list(load_task("eyes").recordings.__globals__["ELECTRODES"]), 6)
    lifted = raw.copy()
    lifted._data += 4e-3  # as amplifiers do
    found = [model.ask(r, "eyes").probabilities for r in (raw, lifted)]
    np.testing.assert_allclose(*found, atol=1e-4)


def test_a_recording_that_was_cut_starts_later(model):
    raw = noise(["Cz"], 20).set_meas_date(1_000_000_000)
    found = model.ask(raw.crop(5, 15), "eyes")
    assert found.start.timestamp() == 1_000_000_005


def test_names_and_words_are_no_markup(model, blink, capsys):
    found = dataclasses.replace(model.ask(blink, "What?"), recording="[/red].edf", question="[/x] Why?")
    reporting.print_answers(dataclasses.replace(found, texts=("[/bold] [red]",) * len(found.texts)))
    said = capsys.readouterr().out
    assert "[/red].edf: [/x] Why?" in said and "[/bold] [red]" in said


@pytest.mark.parametrize("name", ["a.txt", "a-annot.fif", "a.edf"])
def test_annotations_open_again(model, blink, tmp_path, name):
    found = model.ask(blink, "blink", every=10)
    reporting.check_annotations(tmp_path / name)
    reporting.write_annotations(found, tmp_path / name)
    annotations = mne.read_annotations(tmp_path / name)
    np.testing.assert_allclose(annotations.onset, found.onsets, atol=1e-3)
    np.testing.assert_allclose(annotations.duration, 2, atol=1e-3)
    assert annotations.description[0] == f"{found.texts[0]} {found.probabilities[0].max():.2f}"
    marked = blink.copy().set_annotations(annotations)
    assert len(marked.annotations) == len(found.onsets)


def test_the_command(runs, tmp_path, monkeypatch, capsys):
    noise(["Fp1", "Cz", "O2"], 130).save(tmp_path / "x_raw.fif", verbose="error")

    def run(*arguments):
        line = ["ask", str(tmp_path / "x_raw.fif"), "--checkpoint", str(runs / "instruct"), *map(str, arguments)]
        monkeypatch.setattr(sys, "argv", line)
        ask.main()
        return capsys.readouterr().out

    plot, notes = tmp_path / "x.png", tmp_path / "x.txt"
    text = run("--question", "Are the eyes shut in this EEG segment?", "--plot", plot, "--annotations", notes)
    assert "0:00:59 - 0:01:00" in text and "and 70 windows more" in text and "whole recording:" in text
    assert "No medical device" in text and all(len(line) <= 80 for line in text.splitlines()[1:])
    assert plot.read_bytes().startswith(b"\x89PNG") and len(mne.read_annotations(notes)) == 130
    found = json.loads(run("--question", "eyes", "--json"))
    assert len(found["windows"]) == 130 and found["notice"].startswith("No medical device")
    assert set(found["windows"][0]["probabilities"]) == {"Yes", "No"}
    assert "Are the eyes shut" in run()
    for wrong in (("--plot", "x.doc"), ("--annotations", "x.csv"), ("--plot", tmp_path / "no" / "x.png")):
        with pytest.raises(UserError, match=str(wrong[1])):
            run("--question", "eyes", *wrong)
