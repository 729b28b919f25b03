"""NeuroLM in JAX: train and study foundation models of brain signals."""

import pathlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # nothing heavy is imported with the package
    from neurolm_jax.inference.asking import Answerer

__version__ = "0.1.0"


def load(workdir: str | pathlib.Path, trust_code: bool = False) -> "Answerer":
    """A trained model that answers questions: ``load("runs/quickstart/instruct").ask(raw, "Is this EEG ...?")``.

    Args:
      workdir: of an instruct stage.
      trust_code: run the task files (.py) that it names.

    Returns:
      A ``neurolm_jax.inference.asking.Answerer``. No medical device.
    """
    from neurolm_jax.inference.asking import Answerer

    return Answerer(workdir, trust_code)
