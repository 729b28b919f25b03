"""The four stages: language, tokenizer, pretrain, instruct."""

from ml_collections import ConfigDict

from neurolm_jax.configuration import STAGES
from neurolm_jax.errors import UserError
from neurolm_jax.stages.base import Stage, Terms, Weights

__all__ = ["Stage", "Terms", "Weights", "build"]


def build(config: ConfigDict) -> Stage:
    """The stage that a config describes.

    Raises:
      UserError: a stage or a model that cannot be, such as heads that do not divide a width.
    """
    from neurolm_jax.stages.instruct import InstructStage
    from neurolm_jax.stages.language import LanguageStage
    from neurolm_jax.stages.pretrain import PretrainStage
    from neurolm_jax.stages.tokenizer import TokenizerStage

    stages: dict[str, type] = dict(zip(STAGES, (LanguageStage, TokenizerStage, PretrainStage, InstructStage)))
    if config.stage not in stages:
        raise UserError(f"stage: {config.stage!r} is not one of {', '.join(STAGES)}")
    try:
        return stages[config.stage](config)
    except (TypeError, ValueError) as error:  # of the models' dataclasses
        raise UserError(f"config: {error}") from error
