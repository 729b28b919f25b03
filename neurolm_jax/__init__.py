"""NeuroLM in JAX: train and study foundation models of brain signals."""

__version__ = "0.1.0"
