"""What a config's data and model sections name, opened."""

import glob
import os
import pathlib
from typing import Any

from ml_collections import ConfigDict

from neurolm_jax.data import guard, remote
from neurolm_jax.data.eeg_rows import EEGRows, empty_shard_row
from neurolm_jax.data.folds import of_people, people_of, split_people
from neurolm_jax.data.mixture import Mixture
from neurolm_jax.data.shards import Shards, open_shards, read_manifest
from neurolm_jax.data.shares import take
from neurolm_jax.data.streams import Rows
from neurolm_jax.data.text import TextRows, empty_text
from neurolm_jax.eeg.tasks import Task, load_task
from neurolm_jax.eeg.tasks.base import SPLITS
from neurolm_jax.errors import UserError
from neurolm_jax.models.config import EncoderConfig, LanguageModelConfig, NeuroLMConfig, SummaryConfig, TokenizerConfig

BESIDE = ("*/windows/test", "*/*/windows/test")  # of sets, and of folders of sets, beside the data root


def tokenizer_config(config: ConfigDict) -> TokenizerConfig:
    """The model of a config's section ``tokenizer``."""
    fields = config.tokenizer.to_dict()
    return TokenizerConfig(encoder=EncoderConfig(**fields.pop("encoder")), **fields)


def language_config(config: ConfigDict, codes: int) -> LanguageModelConfig:
    """The model of a config's section ``language``, with so many codes of EEG beside its words."""
    return LanguageModelConfig(codes=codes, **config.language.to_dict())


def neurolm_config(config: ConfigDict) -> NeuroLMConfig:
    """The model of both sections: words, and EEG by the tokenizer's encoder."""
    tokenizer = tokenizer_config(config)
    return NeuroLMConfig(
        language=language_config(config, tokenizer.codes),
        encoder_width=tokenizer.encoder.width,
        channels=tokenizer.encoder.channels,
        feature_norm=config.feature_norm,
        summary=_summary_config(config),
    )


def _summary_config(config):
    if "summary" not in config:  # which instruct alone has
        return SummaryConfig()
    fields = config.summary.to_dict() | {"reads": tuple(config.summary.reads)}  # a checkpoint's JSON has a list
    fields |= {"noise": config.feature_noise, "seconds": config.tokenizer.encoder.seconds}
    return SummaryConfig(**fields)


def training(config: ConfigDict, guarded: bool = True) -> list[Shards]:
    """The folders of EEG to train on, as far as the config's share of them goes.

    Args:
      guarded: compare their recordings with those of test parts.

    Raises:
      UserError: one is missing or damaged, or holds a recording of a test part; its manifest does not tell recordings
        and the share is not 1.
    """
    paths = _paths(config, config.data.train)
    parts = _opened("data.train", paths)
    if guarded:
        guard.check_disjoint([(path, part.manifest) for path, part in zip(paths, parts)], _tests(config))
    return [take(part, config.data.share) for part in parts]


def validation(config: ConfigDict) -> list[Shards]:
    """The folders of EEG to validate on.

    Raises:
      UserError: one is missing or damaged.
    """
    return _opened("data.validation", _paths(config, config.data.validation))


def eeg_and_text(config: ConfigDict, train: bool) -> dict[str, tuple[Rows, int]]:
    """Rows of EEG and of text to train or validate on, and how many of them are in a batch.

    Raises:
      UserError: see ``eeg_rows`` and ``text``.
    """
    return {"eeg": (eeg_rows(config, train), config.batch_size), "text": (text(config, train), config.text_batch_size)}


def empty_eeg_and_text(config: ConfigDict) -> dict[str, tuple[Any, int]]:
    """The same with a row of padding for the rows."""
    return {
        "eeg": (empty_shard_row(config.row_length), config.batch_size),
        "text": (empty_text(config.text_length), config.text_batch_size),
    }


def eeg_rows(config: ConfigDict, train: bool) -> Rows:
    """Rows of the EEG to train or validate on, of windows that the encoder can read.

    Raises:
      UserError: see ``training`` and ``EEGRows``.
    """
    parts, seed = (training(config), config.seed) if train else (validation(config), None)
    encoder = tokenizer_config(config).encoder
    size = config.row_length, encoder.seconds, seed, train and config.data.random_start, encoder.literal_names
    if train and config.data.weights:
        return Mixture([EEGRows([part], *size) for part in parts], config.data.weights, seed)
    return EEGRows(parts, *size)


def tasks(config: ConfigDict, *splits: str, guarded: bool = True) -> list[tuple[Task, Shards]]:
    """The config's tasks with the shards of some splits; what is not a test part is checked against every test part,
    unless it is not to be ``guarded``.

    Raises:
      UserError: no task, one that is not known or named twice, or with windows longer than the encoder reads; shards
        that are missing or damaged, or share a recording with a test part; see ``split_people`` for folds.
    """
    if not config.data.tasks:
        raise UserError("config.data.tasks: want one or more")
    try:
        found = [load_task(name) for name in config.data.tasks]
    except UserError as error:
        raise UserError(f"config.data.tasks: {error}") from error
    for task in found:
        if [other.name for other in found].count(task.name) > 1:
            raise UserError(f"config.data.tasks: {task.name} is there more than once")
        if task.seconds > (longest := config.tokenizer.encoder.seconds):
            raise UserError(
                f"config.data.tasks: {task.name} has windows of {task.seconds} s, the encoder reads {longest} at most"
                " (config.tokenizer.encoder.seconds)"
            )
    if config.data.folds:
        return _folded(config, found, splits, guarded)
    parts = [(task, *_opened("data.tasks", [task_folder(config, task, split)])) for task in found for split in splits]
    if guarded and "test" not in splits:
        guard.check_disjoint(_named(part for _, part in parts), _tests(config))
    return parts


def _folded(config, found, splits, guarded):
    """Tasks with shards of a fold's splits, for which the people of all published parts are dealt anew."""
    folds, fold = config.data.folds, config.data.fold
    if folds < 3 or not 0 <= fold < folds:
        raise UserError(
            f"config.data.folds: want 0, or 3 or more, and config.data.fold below it, not {fold} of {folds}"
        )
    parts, tests = [], []
    for task in found:
        published = _opened("data.tasks", [task_folder(config, task, split) for split in SPLITS])
        dealt = split_people(published, folds)
        for split in splits:
            parts += [(task, part) for part in of_people(published, split, people_of(split, dealt, fold))]
        tests += of_people(published, "test", people_of("test", dealt, fold))
    if guarded and "test" not in splits:
        ours = {str(task_folder(config, task, "test")) for task in found}
        others = [(folder, manifest) for folder, manifest in _tests(config) if str(folder) not in ours]
        guard.check_disjoint(_named(part for _, part in parts), [*_named(tests), *others])
    return parts


def learnt_tasks(config: ConfigDict, guarded: bool = True) -> list[tuple[Task, Shards]]:
    """The config's tasks with the shards to learn from, as far as its share of them goes.

    Raises:
      UserError: see ``tasks``; no window of a label in that share.
    """
    share, found = config.data.share, []
    for task, shards in tasks(config, *config.data.splits, guarded=guarded):
        part = take(shards, share)
        labels, left = (set(one.manifest["index"].get("label", ())) for one in (shards, part))
        if lost := sorted(labels - left):
            raise UserError(
                f"config.data.share: {share:g} of {shards.path} has no window of {', '.join(lost)}; choose a larger one"
            )
        found.append((task, part))
    return found


def task_folder(config: ConfigDict, task: Task, split: str) -> pathlib.Path | str:
    """The folder, or address, of a task's windows of a split."""
    return _below(config.data.root, f"{task.name}/windows/{split}")


def text(config: ConfigDict, train: bool) -> TextRows:
    """Rows of the text to train or validate on.

    Raises:
      UserError: its shards are missing, damaged, empty or none of text.
    """
    [folder] = _paths(config, [config.data.text])
    [shards] = _opened("data.text", [_below(str(folder), "train" if train else "validation")])
    return TextRows(shards, config.text_length, config.seed if train else None)


def _paths(config, names):
    root = config.data.root
    if not remote.is_url(root) and not pathlib.Path(root).is_dir():
        raise UserError(f"data.root: {root}: no such folder; write it with 'python -m neurolm_jax.prepare'")
    paths = [_below(root, name) for name in names]
    if not paths:
        raise UserError("data.train and data.validation must name at least one folder under data.root")
    return paths


def _named(parts):
    """Path and manifest of each."""
    return [(part.path, part.manifest) for part in parts]


def _opened(field, paths):
    """Shards that a field of the config names."""
    try:
        return [open_shards(path) for path in paths]
    except UserError as error:
        raise UserError(f"config.{field}: {error}") from error


def _tests(config):
    """Folder and manifest of every test part under the data root, whether or not this config names its task; and of
    those beside it, as corpus/ and tasks/ lie, of sets that the root has not itself: another split of a set that is
    there may well test on what this one trains on."""
    root = config.data.root
    found = [(folder, read_manifest(folder)) for folder in _find_manifests(root, "**/windows/test")]
    here = {manifest.get("source") for _, manifest in found}
    parent = root.rstrip("/").rpartition("/")[0] if remote.is_url(root) else pathlib.Path(root).absolute().parent
    beside = []
    if not str(parent).endswith((":/", ":")):  # a bucket's own root has nothing beside it
        beside = [folder for pattern in BESIDE for folder in _find_manifests(parent, pattern)]
    inside = {_same_place(folder) for folder, _ in found}
    others = [(folder, read_manifest(folder)) for folder in beside if _same_place(folder) not in inside]
    return found + [(folder, manifest) for folder, manifest in others if manifest.get("source") not in here]


def _find_manifests(root, pattern):
    """Folders with a manifest below a folder or address, by a glob pattern."""
    pattern = f"{pattern}/manifest.json"
    if remote.is_url(root):
        return [file.removesuffix("/manifest.json") for file in remote.find(str(root), pattern)]
    # Not pathlib's, which passes linked folders by.
    return [pathlib.Path(root, file).parent for file in sorted(glob.glob(pattern, root_dir=root, recursive=True))]


def _same_place(folder):
    return folder if remote.is_url(folder) else os.path.realpath(folder)


def _below(root, name):
    return f"{root.rstrip('/')}/{name}" if remote.is_url(root) else pathlib.Path(root) / name
