"""NeuroLM in JAX: train and study foundation models of brain signals."""

__version__ = "0.1.0"


def load(workdir, trust_code=False):
    """A trained model that answers questions: ``load("runs/quickstart/instruct").ask(raw, "Is this EEG ...?")``.

    Args:
      workdir: of an instruct stage.
      trust_code: run the task files (.py) that it names.

    Returns:
      A ``neurolm_jax.inference.asking.Answerer``. No medical device.
    """
    from neurolm_jax.inference.asking import Answerer

    return Answerer(workdir, trust_code)
