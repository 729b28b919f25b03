"""NeuroLM in JAX: train and study foundation models of brain signals."""

import pathlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # nothing heavy is imported with the package
    from neurolm_jax.inference.asking import Answerer
    from neurolm_jax.inference.encoder import Encoder
    from neurolm_jax.inference.estimators import NeuroLMClassifier, NeuroLMFeatures

__version__ = "0.1.0"
__all__ = ["NeuroLMClassifier", "NeuroLMFeatures", "load"]


def load(workdir: str | pathlib.Path, trust_code: bool = False) -> "Answerer | Encoder":
    """Load a trained model: ``load("runs/quickstart/tokenizer").encode(raw)`` gives features of a recording,
    ``load("runs/quickstart/instruct").ask(raw, "Is this EEG ...?")`` answers too.

    Args:
      workdir: of a tokenizer, pretrain or instruct stage.
      trust_code: run the task files (.py) that an instruct stage names.

    Returns:
      A ``neurolm_jax.inference.asking.Answerer`` of an instruct stage; of another an ``Encoder``, which has features
      alone. No medical device.
    """
    from neurolm_jax.inference.asking import Answerer
    from neurolm_jax.inference.encoder import Encoder
    from neurolm_jax.inference.model import stage_of

    return Answerer(workdir, trust_code) if stage_of(workdir) == "instruct" else Encoder(workdir)


def __getattr__(name: str) -> Any:
    """The estimators for scikit-learn, which is imported with them."""
    if name in ("NeuroLMClassifier", "NeuroLMFeatures"):
        from neurolm_jax.inference import estimators

        return getattr(estimators, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
