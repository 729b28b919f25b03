"""The recipe on open sets: every stage in both sizes is a config that builds, and the stages fit each other."""

import pytest

from configs import open as recipe
from neurolm_jax import configuration, stages
from neurolm_jax.eeg.tasks import load_task
from neurolm_jax.errors import UserError
from neurolm_jax.stages.inheritance import INHERITED


def field(config, name):
    for part in name.split("."):
        config = config[part]
    return config


@pytest.mark.parametrize("size", ["", ",small", ",b"])
def test_stages_of_a_size_build_and_fit_each_other(size):
    configs = {stage: recipe.get_config(f"{stage}{size}") for stage in configuration.STAGES}
    for config in configs.values():
        configuration.check(config)
        stages.build(config)
        assert config.warmup_steps < config.steps
    for (stage, earlier), fields in INHERITED.items():
        if earlier in configs[stage].initial:
            for ours, theirs in fields.items():
                assert field(configs[stage], ours) == field(configs[earlier], theirs), (stage, ours)


def test_rows_hold_the_windows_of_every_task():
    config = recipe.get_config("instruct")
    for name in config.data.tasks:
        task = load_task(name)
        assert len(task.channels) * task.seconds <= config.eeg_length, name


def test_nobody_of_a_task_outside_the_corpus_is_learnt_from_before_instruct():
    for stage in ("tokenizer", "pretrain"):
        folders = recipe.get_config(stage).data.train
        assert {folder.split("/")[0] for folder in folders} == set(recipe.TASKS) - {"workload"}
        assert all(folder.endswith("/recordings/train") for folder in folders)


def test_other_sizes_and_stages_are_refused():
    with pytest.raises(UserError, match="open.py:tokenizer,xl: the sizes are small, b"):
        recipe.get_config("tokenizer,xl")
    with pytest.raises(UserError, match="open.py:tokeniser: the stages are language"):
        recipe.get_config("tokeniser")
