"""Rows of questions and answers: each sample's EEG, then [SEP], question, answer, end of text (paper, section 2.4)."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from neurolm_jax.data import vocabulary
from neurolm_jax.data.eeg_rows import MICROVOLTS, empty_row, fill_row
from neurolm_jax.data.packing import RowPlan
from neurolm_jax.data.shards import DamagedRecord, Shards, content_of
from neurolm_jax.data.streams import Amount, Damaged
from neurolm_jax.eeg.preprocessing import RATE
from neurolm_jax.eeg.records import Record, decode
from neurolm_jax.eeg.tasks import Task, prompts
from neurolm_jax.eeg.tasks.prompts import Prompt
from neurolm_jax.errors import UserError

NO_TARGET = -1


@dataclasses.dataclass(frozen=True)
class RowSize:
    """What a row holds: EEG tokens, all tokens, answer tokens that are learnt, and samples.

    One sample alone where the encoder's norm runs over the row, as in the released models. literal_names: see
    ``eeg_rows.fill_row``.
    """

    eeg: int
    tokens: int
    answers: int
    samples: int = 2**20
    literal_names: bool = False

    @property
    def capacity(self) -> tuple[int, int, int, int]:
        """EEG tokens, all tokens, answer tokens and samples, for planning rows."""
        return self.eeg, self.tokens, self.answers, self.samples


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """Changes drawn anew for every sample in every epoch; zeros leave it as it is.

    Attributes:
      scale: deviation of the log of a gain common to all channels.
      offset: deviation of a constant added to each channel, microvolts.
    """

    scale: float = 0.0
    offset: float = 0.0


@dataclasses.dataclass(frozen=True)
class Dialogue:
    """One sample ready to be put into a row: samples [C, S * 200] microvolts, tokens after the EEG."""

    samples: np.ndarray
    electrodes: tuple[int, ...]
    prompt: list[int]  # [SEP] and question
    answer: list[int]  # answer and end of text; empty to leave it open


class DialogueRows:
    """Labelled windows of several tasks, packed.

    A window longer than its task's whole seconds is cropped, at random while training.

    Args:
      seed: of order, crops and augmentation; None for a fixed order and centred crops.
      shuffle_labels: deal each task's labels at random among its windows (a control: nothing is left to learn).
      varied: ask in one of the task's wordings, options in any order, drawn anew for every sample in every epoch.
      shuffled: draw the order of the options alone. Without either, or without a seed, ask as the released models are.
    """

    def __init__(
        self,
        tasks: Sequence[tuple[Task, Shards]],
        size: RowSize,
        seed: int | None,
        augmentation: Augmentation = Augmentation(),
        shuffle_labels: bool = False,
        varied: bool = False,
        shuffled: bool = False,
    ):
        self._tasks, self._size, self._seed, self._augmentation = tasks, size, seed, augmentation
        self._choices = shuffle_labels, varied, shuffled
        self.content = content_of(shards for _, shards in tasks)
        self._varied, self._shuffled = (way and seed is not None for way in (varied, shuffled))
        self._samples: list[tuple[int, int, str]] = []  # task, record, label
        sizes = []
        for number, (task, shards) in enumerate(tasks):
            index = shards.manifest["index"]
            labels = index.get("label", [])
            for label in sorted(set(labels) - set(task.answers)):
                raise UserError(f"{shards.path}: label {label!r} is not one of task {task.name}'s {list(task.answers)}")
            # The order of options does not change a question's length.
            wordings = range(1 + len(task.wordings) if self._varied else 1)
            longest = max(len(prompt_tokens(prompts.prompt(task, wording).question)) for wording in wordings)
            answers = dict(zip(task.answers, map(answer_tokens, prompts.prompt(task).answers)))
            if shuffle_labels:
                labels = np.random.default_rng((seed or 0, number)).permutation(labels).tolist()
            for record, (label, channels) in enumerate(zip(labels, index.get("channels", []))):
                self._samples.append((number, record, label))
                eeg, answer = channels * task.seconds, len(answers[label])
                sizes.append((eeg, eeg + longest + answer, answer, 1))
        filled = {tasks[number][0].name for number, _, _ in self._samples}
        # Without a seed it is a validation part, which some sets do not have.
        if empty := [task.name for task, _ in tasks if task.name not in filled and (seed is not None or not filled)]:
            folders = ", ".join(str(shards.path) for task, shards in tasks if task.name in empty)
            raise UserError(f"{', '.join(dict.fromkeys(empty))}: no labelled window in {folders}")
        capacity = size.capacity
        largest = np.max(sizes, axis=0)
        if (largest > capacity).any():
            raise UserError(
                f"a sample needs {tuple(largest[:3].tolist())} (EEG, all, answer) tokens, a row has {capacity[:3]};"
                " raise config.eeg_length, row_length or answer_length"
            )
        self._plan, self._tokens = RowPlan(np.array(sizes), capacity, seed), sum(size[0] for size in sizes)

    def __len__(self) -> int:
        return len(self._plan)

    @property
    def amount(self) -> Amount:
        return Amount(self._tokens, self._tokens / len(self))

    def __getitem__(self, index: int) -> dict[str, dict[str, np.ndarray]] | Damaged:
        [row] = self.__getitems__([index])
        return row

    def __getitems__(self, indices: Sequence[int]) -> list[dict[str, dict[str, np.ndarray]] | Damaged]:
        """Several rows, whose records are read together."""
        wanted = [self._plan.row(index) for index in indices]
        read: dict[int, dict[int, Any]] = {}  # task -> record -> its bytes
        for sample in (sample for _, samples in wanted for sample in samples):
            number, record, _ = self._samples[sample]
            read.setdefault(number, {})[record] = None
        for number, records in read.items():
            records.update(zip(records, self._tasks[number][1].source.__getitems__(list(records))))
        return [self._fill(epoch, samples, read) for epoch, samples in wanted]

    def _fill(self, epoch, samples, read):
        found, faults = [], []
        for sample in samples:
            number, record, _ = self._samples[sample]
            data = read[number][record]
            if isinstance(data, DamagedRecord):
                faults.append(str(data))
            else:
                found.append(self._dialogue(epoch, sample, decode(data)))
        row = fill_dialogues(found, self._size)
        return Damaged(row, faults) if faults else row

    def by_task(self) -> dict[str, "DialogueRows"]:
        """The rows of each task that has a window, packed by themselves."""
        found: dict[str, list] = {}
        for task, shards in self._tasks:
            if shards.manifest["index"].get("label"):
                found.setdefault(task.name, []).append((task, shards))
        return {
            name: DialogueRows(parts, self._size, self._seed, self._augmentation, *self._choices)
            for name, parts in found.items()
        }

    def origins(self, index: int) -> list[str]:
        """The folder, record and label of each sample."""
        _, samples = self._plan.row(index)
        found = (self._samples[sample] for sample in samples)
        return [f"{self._tasks[number][1].path}: record {record}, {label}" for number, record, label in found]

    def _dialogue(self, epoch, sample, record):
        number, _, label = self._samples[sample]
        task, _ = self._tasks[number]
        spare = record.samples.shape[1] - task.seconds * RATE
        if self._seed is None:
            return dialogue(task, record, spare // 2, prompts.prompt(task), label)
        rng = np.random.default_rng((self._seed, epoch, sample))
        gain = np.exp(self._augmentation.scale * rng.standard_normal())
        offset = self._augmentation.offset * rng.standard_normal((len(record.samples), 1))
        record = dataclasses.replace(record, samples=np.float32(gain * record.samples + offset))
        begin = int(rng.integers(spare + 1))
        drawn = self._varied or self._shuffled
        asked = prompts.draw(task, rng, self._varied) if drawn else prompts.prompt(task)
        return dialogue(task, record, begin, asked, label)


@functools.lru_cache(maxsize=4096)
def prompt_tokens(question: str) -> list[int]:
    """[SEP] and the question."""
    return [vocabulary.SEPARATOR, *vocabulary.encode(question)]


@functools.lru_cache(maxsize=4096)
def answer_tokens(answer: str) -> list[int]:
    """The answer's words, a space, and the end of text, as the released models were taught."""
    return [*vocabulary.encode(answer + " "), vocabulary.END_OF_TEXT]


def dialogue(task: Task, record: Record, begin: int, prompt: Prompt, label: str) -> Dialogue:
    """A window's crop of the task's length from sample ``begin`` on, with a question and its answer."""
    answer = answer_tokens(prompt.answers[task.labels.index(label)])
    return Dialogue(crop(task, record, begin), record.electrodes, prompt_tokens(prompt.question), answer)


def crop(task: Task, record: Record, begin: int) -> np.ndarray:
    """A window's samples [C, task.seconds * 200] from sample ``begin`` on."""
    return record.samples[:, begin : begin + task.seconds * RATE]


def fill_dialogues(dialogues: Sequence[Dialogue], size: RowSize) -> dict[str, dict[str, np.ndarray]]:
    """One row of several dialogues.

    Returns:
      ``eeg``: a row as ``eeg_rows.empty_row`` gives, E tokens.
      ``mixed``, int32: eeg_index [T], place among the row's EEG tokens or -1; tokens [T]; position [T], of EEG its
      second, of text the count from the last second + 1; second [T]; segment [T]; answer_index [A], the positions
      that predict an answer's token, and answer_target [A], -1 where there is none.
    """
    eeg = empty_row(size.eeg)
    mixed = {key: np.zeros(size.tokens, np.int32) for key in ("tokens", "position", "second", "segment")}
    mixed["eeg_index"] = np.full(size.tokens, -1, np.int32)
    answer_index, answer_target = np.zeros(size.answers, np.int32), np.full(size.answers, NO_TARGET, np.int32)
    eeg_place = place = answers = 0
    for segment, d in enumerate(dialogues, start=1):
        begin, samples = eeg_place, d.samples / MICROVOLTS
        eeg_place = fill_row(eeg, begin, segment, samples, d.electrodes, literal_names=size.literal_names)
        count = eeg_place - begin
        here = slice(place, place + count)
        mixed["eeg_index"][here] = np.arange(begin, eeg_place)
        mixed["position"][here] = mixed["second"][here] = eeg["second"][begin:eeg_place]
        text = d.prompt + d.answer
        here = slice(place + count, place + count + len(text))
        mixed["tokens"][here] = text
        mixed["position"][here] = eeg["second"][eeg_place - 1] + 1 + np.arange(len(text))
        mixed["second"][here] = mixed["position"][here]
        mixed["segment"][place : here.stop] = segment
        learnt = slice(answers, answers + len(d.answer))
        answer_target[learnt] = d.answer
        answer_index[learnt] = np.arange(here.stop - len(d.answer) - 1, here.stop - 1)
        place, answers = here.stop, learnt.stop
    return {"eeg": eeg, "mixed": mixed | {"answer_index": answer_index, "answer_target": answer_target}}
