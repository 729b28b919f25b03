"""Questions about a recording of the user's own."""

import dataclasses
import datetime
import pathlib
from typing import TYPE_CHECKING

import numpy as np

from neurolm_jax.corpus.task_windows import from_baseline, judge_window
from neurolm_jax.data.dialogues import prompt_tokens
from neurolm_jax.eeg.preprocessing import RATE, Preprocessing, check_rate
from neurolm_jax.eeg.reading import corrected, warnings_by_kind
from neurolm_jax.eeg.records import Record
from neurolm_jax.eeg.tasks import load_task, prompts
from neurolm_jax.eeg.tasks.readers import duration_of, foreign_bytes
from neurolm_jax.errors import UserError
from neurolm_jax.inference import findings
from neurolm_jax.inference.encoder import Encoder
from neurolm_jax.inference.generation import generate
from neurolm_jax.inference.measures import with_temperature
from neurolm_jax.inference.model import load_trained, trusted_tasks
from neurolm_jax.inference.own_recordings import choose, prepare, reading_notes
from neurolm_jax.inference.questions import Question, Size
from neurolm_jax.inference.scoring import probabilities_of
from neurolm_jax.inference.windows import check_every, window_begins

if TYPE_CHECKING:  # MNE takes a second to import
    import mne

NOTICE = "No medical device: for research, not for diagnosis or treatment."
FREE_WINDOW = 10  # seconds, where no task says how long a window is
WORDS = 32  # tokens of a free answer


@dataclasses.dataclass(frozen=True)
class Answers:
    """What a model says about a recording, window by window.

    Attributes:
      recording: what it is called.
      question: as it was asked.
      task: whose question it is, None if it is of the user's own.
      onsets: of the windows, in seconds [N].
      seconds: of a window.
      choices: the answers allowed, () for free text.
      probabilities: of each choice [N, K], None for free text.
      texts: the answer of each window.
      channels: used.
      left_out: reason by channel not used.
      mains: Hz that were notched, None for none.
      start: date and time of the recording's first sample, None if it does not tell.
      marks: of each window, what is bad in it: kinds of ``quality.KINDS``, () for none.
      notes: what a reader should know.
      temperature: of the probabilities' calibration, 1 for none.
    """

    recording: str
    question: str
    task: str | None
    onsets: np.ndarray
    seconds: float
    choices: tuple[str, ...]
    probabilities: np.ndarray | None
    texts: tuple[str, ...]
    channels: tuple[str, ...]
    left_out: dict[str, str]
    mains: float | None
    start: datetime.datetime | None = None
    marks: tuple[tuple[str, ...], ...] = ()
    notes: tuple[str, ...] = ()
    temperature: float = 1.0

    @property
    def overall(self) -> dict[str, float]:
        """Probability of each choice for the whole recording, {} for free text.

        It is the mean over the windows, without those that are missing, huge or marked BAD if there are others.
        """
        if self.probabilities is None:
            return {}
        fit = np.array([not {"missing", "huge", "annotated"} & set(kinds) for kinds in self.marks], bool)
        counted = self.probabilities[fit] if fit.any() else self.probabilities
        return dict(zip(self.choices, counted.mean(axis=0).tolist()))

    @property
    def answer(self) -> str | None:
        """The answer for the whole recording, None for free text."""
        return max(self.overall, key=self.overall.__getitem__) if self.overall else None

    def to_dict(self) -> dict:
        """All of it, as JSON has it."""
        windows = []
        for i, (onset, text) in enumerate(zip(self.onsets.tolist(), self.texts)):
            window = {"onset": onset, "duration": self.seconds, "answer": text}
            if self.probabilities is not None:
                window["probabilities"] = dict(zip(self.choices, self.probabilities[i].tolist()))
            if self.marks and self.marks[i]:
                window["marks"] = list(self.marks[i])
            windows.append(window)
        return {
            "recording": self.recording,
            "question": self.question,
            "task": self.task,
            "answer": self.answer,
            "probabilities": self.overall,
            "windows": windows,
            "channels": list(self.channels),
            "left_out": self.left_out,
            "mains": self.mains,
            "temperature": self.temperature,
            "notes": list(self.notes),
            "notice": NOTICE,
        }

    def to_annotations(self) -> "mne.Annotations":
        """``mne.Annotations`` for ``raw.set_annotations``: a window each, described by its answer and probability."""
        import mne

        described = [text or "(no answer)" for text in self.texts]
        if self.probabilities is not None:
            described = [f"{text} {p:.2f}" for text, p in zip(self.texts, self.probabilities.max(axis=1))]
        return mne.Annotations(self.onsets, np.full(len(self.onsets), self.seconds), described)


class Answerer(Encoder):
    """A trained model that answers questions about recordings, and has their features as ``Encoder`` does."""

    def __init__(self, workdir: str | pathlib.Path, trust_code: bool = False):
        super().__init__(load_trained(workdir))
        self._tasks = [load_task(name) for name in trusted_tasks(workdir, self._model.stage.config, trust_code)]
        self._temperatures, self._notes = _temperatures(pathlib.Path(workdir), self._model.written)

    @property
    def questions(self) -> dict[str, str]:
        """What the model was taught to answer, by task."""
        return {task.name: task.question for task in self._tasks}

    def ask(
        self,
        raw: "mne.io.BaseRaw",
        question: str,
        *,
        every: float | None = None,
        window: int | None = None,
        mains: float | None = None,
        name: str = "recording",
    ) -> Answers:
        """Ask about every window of an ``mne.io.Raw``, which is left as it is.

        Args:
          question: the name or the question of a task, whose allowed answers are scored; any other is answered in free
            text.
          every: seconds from window to window, by default a window's length.
          window: seconds of a window for a free question; that of a task is its own.
          mains: Hz, by default of the header, else of the spectrum.
          name: what to call the recording.

        Raises:
          UserError: no known electrode, too short, sampled too slowly, samples that are no EEG's, or an argument that
            makes no sense.
        """
        task, wording = self._match(question)
        if task and window not in (None, task.seconds):
            raise UserError(f"window: {task.name} is asked of windows of {task.seconds} s, not {window}")
        seconds = task.seconds if task else FREE_WINDOW if window is None else window
        longest = self._model.stage.tokenizer_config.encoder.seconds
        if seconds not in range(1, longest + 1):
            raise UserError(f"window: must be whole seconds from 1 to {longest}, not {seconds:g}")
        seconds = int(seconds)
        every = seconds if every is None else every
        check_every(every)
        settings = task.preprocessing if task else Preprocessing()
        given: dict[str, int] = {}
        with warnings_by_kind(given):
            with foreign_bytes(name):
                raw = corrected(raw)
            check_rate(raw, name)
            too_short = UserError(f"{name}: too short, {duration_of(raw):.1f} s; a window has {seconds} s")
            if duration_of(raw) < seconds:
                raise too_short
            wanted = task.channels if task else ()
            places, left_out, notes = choose(raw, wanted, name)
            signal, channels, refused, mains = prepare(raw, places, settings, mains, name)
        left_out |= refused
        begins = window_begins(signal.spans, seconds, every)
        if not len(begins):  # of a recording no longer than a window, resampling may leave a sample less
            if len(signal.spans) == 1:
                raise too_short
            raise UserError(f"{name}: nowhere {seconds} s without a jump of time")
        judged = [judge_window(signal, begin, seconds * RATE)[1] for begin in begins.tolist()]
        rows = [fit.channels if len(fit.channels) else np.arange(len(channels)) for fit in judged]

        def record(i):
            samples = signal.samples[rows[i], begins[i] : begins[i] + seconds * RATE]
            samples = from_baseline(task, samples) if task else samples
            return Record(samples, tuple(signal.electrodes[row] for row in rows[i]), name, name)

        marks = tuple(fit.marks for fit in judged)
        shared = {
            "recording": name,
            "onsets": begins / RATE,
            "seconds": float(seconds),
            "channels": tuple(channels),
            "left_out": left_out,
            "mains": mains,
            "start": raw.info["meas_date"] and raw.info["meas_date"] + datetime.timedelta(seconds=raw.first_time),
            "marks": marks,
            "notes": (*notes, *reading_notes(marks, raw, given), *(self._notes if task else ())),
        }
        counts = [len(row) for row in rows]
        if task:
            return self._score(task, wording, counts, record, shared)
        return self._say(question, [count * seconds for count in counts], record, shared)

    def _match(self, question):
        """The task whose question it is, and its wording."""
        wanted = _plain(question)
        for task in self._tasks:
            for wording, known in enumerate((task.question, *task.wordings)):
                if wanted in (_plain(known), task.name.casefold()):
                    return task, wording
        return None, 0

    def _score(self, task, wording, channels, record, shared):
        prompt = prompts.prompt(task, wording)
        found = probabilities_of(self._model, task, prompt, channels, [task.seconds * RATE] * len(channels), record)
        temperature = self._temperatures.get(task.name, 1.0)
        found = with_temperature(found, temperature)
        choices = tuple(task.answers.values())
        return Answers(
            question=prompt.question,
            task=task.name,
            choices=choices,
            probabilities=found,
            texts=tuple(choices[k] for k in found.argmax(axis=1)),
            temperature=temperature,
            **shared,
        )

    def _say(self, question, tokens, record, shared):
        asked = prompts.free_prompt(question)
        prompt = prompt_tokens(asked)

        def make(i):
            found = record(i)
            return Question(found.samples, found.electrodes, prompt)

        texts = generate(self._model, [Size(count, len(prompt)) for count in tokens], make, WORDS)
        texts = tuple(" ".join(text.split()) for text in texts)
        return Answers(question=asked, task=None, choices=(), probabilities=None, texts=texts, **shared)


def _plain(question):
    """A question without its frame, options and marks, for comparison."""
    return " ".join(prompts.stem_of(question).split()).rstrip("?").casefold()


def _temperatures(workdir, written):
    """By task, as ``evaluate`` fitted them on validation to this checkpoint; and what to say about them."""
    file = workdir / "evaluation.json"
    if not file.is_file():
        return {}, ()
    found = findings.read(file)
    if found.get("checkpoint") != written:
        return {}, (f"probabilities are not calibrated: {file} is of another checkpoint; run evaluate again",)
    return {n: task["calibration"]["temperature"] for n, task in found["tasks"].items() if task.get("calibration")}, ()
