"""What a config's data and model sections name, opened."""

import pathlib

from ml_collections import ConfigDict

from neurolm_jax.data import guard, remote
from neurolm_jax.data.eeg_rows import EEGRows
from neurolm_jax.data.mixture import Mixture
from neurolm_jax.data.shards import Shards, open_shards
from neurolm_jax.data.shares import take
from neurolm_jax.data.streams import Rows
from neurolm_jax.data.text import TextRows
from neurolm_jax.eeg.tasks import Task, load_task
from neurolm_jax.errors import UserError
from neurolm_jax.models.config import EncoderConfig, LanguageModelConfig, NeuroLMConfig, TokenizerConfig


def tokenizer_config(config: ConfigDict) -> TokenizerConfig:
    fields = config.tokenizer.to_dict()
    return TokenizerConfig(encoder=EncoderConfig(**fields.pop("encoder")), **fields)


def language_config(config: ConfigDict, codes: int) -> LanguageModelConfig:
    return LanguageModelConfig(codes=codes, **config.language.to_dict())


def neurolm_config(config: ConfigDict) -> NeuroLMConfig:
    tokenizer = tokenizer_config(config)
    return NeuroLMConfig(
        language=language_config(config, tokenizer.codes),
        encoder_width=tokenizer.encoder.width,
        channels=tokenizer.encoder.channels,
        feature_norm=config.feature_norm,
    )


def training(config: ConfigDict) -> list[Shards]:
    """The folders of EEG to train on, none of which may hold a recording of a test part, as far as the config's share
    of them goes."""
    parts = _opened("data.train", _paths(config, config.data.train))
    guard.check_disjoint(parts, _tests(config))
    return [take(part, config.data.share) for part in parts]


def validation(config: ConfigDict) -> list[Shards]:
    return _opened("data.validation", _paths(config, config.data.validation))


def eeg_rows(config: ConfigDict, seconds: int, train: bool) -> Rows:
    """Rows of the EEG to train or validate on, windows of at most ``seconds``."""
    parts, seed = (training(config), config.seed) if train else (validation(config), None)
    size = config.row_length, seconds, seed, train and config.data.random_start
    if train and config.data.weights:
        return Mixture([EEGRows([part], *size) for part in parts], config.data.weights, seed)
    return EEGRows(parts, *size)


def tasks(config: ConfigDict, *splits: str) -> list[tuple[Task, Shards]]:
    """The config's tasks with the shards of some splits; what is not a test part is checked against every test part."""
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
    parts = [(task, *_opened("data.tasks", [task_folder(config, task, split)])) for task in found for split in splits]
    if "test" not in splits:
        guard.check_disjoint([shards for _, shards in parts], _tests(config))
    return parts


def learnt_tasks(config: ConfigDict) -> list[tuple[Task, Shards]]:
    """The config's tasks with the shards to learn from, as far as its share of them goes."""
    share, found = config.data.share, []
    for task, shards in tasks(config, *config.data.splits):
        part = take(shards, share)
        labels, left = (set(one.manifest["index"].get("label", ())) for one in (shards, part))
        if lost := sorted(labels - left):
            raise UserError(
                f"config.data.share: {share:g} of {shards.path} has no window of {', '.join(lost)}; choose a larger one"
            )
        found.append((task, part))
    return found


def task_folder(config: ConfigDict, task: Task, split: str) -> pathlib.Path | str:
    return _below(config.data.root, f"{task.name}/windows/{split}")


def text(config: ConfigDict, train: bool) -> TextRows:
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


def _opened(field, paths):
    """Shards that a field of the config names."""
    try:
        return [open_shards(path) for path in paths]
    except UserError as error:
        raise UserError(f"config.{field}: {error}") from error


def _tests(config):
    """Every test part under the data root, whether or not this config names its task."""
    root = config.data.root
    if remote.is_url(root):
        found = remote.find(root, "**/windows/test/manifest.json")
        return [open_shards(address.removesuffix("/manifest.json")) for address in found]
    manifests = sorted(pathlib.Path(root).rglob("windows/test/manifest.json"))
    return [open_shards(manifest.parent) for manifest in manifests]


def _below(root, name):
    return f"{root.rstrip('/')}/{name}" if remote.is_url(root) else pathlib.Path(root) / name
