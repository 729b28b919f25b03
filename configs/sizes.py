"""Model sizes.

``b``, ``l`` and ``xl`` are the paper's; ``official_b`` ... compute what the released models compute. ``debug`` runs
anywhere in seconds, ``quickstart`` on a laptop in minutes. The tokenizer is the same for b, l and xl. What the fields
mean stands in ``neurolm_jax/models/config.py``.
"""

from ml_collections import ConfigDict

from neurolm_jax.errors import UserError

_LANGUAGE = {
    "debug": {"layers": 2, "heads": 2, "width": 32},
    "quickstart": {"layers": 2, "heads": 4, "width": 96},
    "b": {"layers": 12, "heads": 12, "width": 768},
    "l": {"layers": 24, "heads": 16, "width": 1024},
    "xl": {"layers": 48, "heads": 25, "width": 1600},
}
_BASE_TOKENIZER = {"layers": 12, "heads": 12, "width": 768, "decoder_layers": 4, "codes": 8192, "code_width": 128}
_TOKENIZER = {
    "debug": {"layers": 2, "heads": 2, "width": 32, "decoder_layers": 1, "codes": 64, "code_width": 16},
    "quickstart": {"layers": 3, "heads": 4, "width": 96, "decoder_layers": 1, "codes": 256, "code_width": 32},
    "b": _BASE_TOKENIZER,
    "l": _BASE_TOKENIZER,
    "xl": _BASE_TOKENIZER,
}
NAMES = (*_LANGUAGE, "official_b", "official_l", "official_xl")


def language(size: str) -> ConfigDict:
    """Fields of ``LanguageModelConfig``."""
    small = _plain(size) in ("debug", "quickstart")
    return ConfigDict(
        _LANGUAGE[_plain(size)]
        | {
            "vocabulary": 50304,
            "positions": 1024,
            "approximate_gelu": False,
            "dropout": 0.0,
            "dtype": "float32" if small else "bfloat16",
            "remat": "none" if small else "all",
        }
    )


def tokenizer(size: str) -> ConfigDict:
    """Fields of ``TokenizerConfig``, the encoder's in a section of their own."""
    fields = dict(_TOKENIZER[_plain(size)])
    small = _plain(size) in ("debug", "quickstart")
    official = size.startswith("official_")
    encoder = {key: fields.pop(key) for key in ("layers", "heads", "width")} | {
        "channels": 256,
        "seconds": 64,
        "patch_norm": "row" if official else "patch",
        "causal": not official,
        "dtype": "float32" if small else "bfloat16",
        "remat": "none" if small else "all",
    }
    rest = {
        "domain_width": 256,
        "decay": 0.99,
        "dead_below": 0.0 if official else 0.05,
        "spectrum_target": "amplitude",
        "spectrum_head": False,
    }
    return ConfigDict({"encoder": encoder, **fields, **rest})


def summary() -> ConfigDict:
    """Fields of ``SummaryConfig`` that are not settled by other sections."""
    return ConfigDict({"reads": (), "width": 256, "virtual_electrodes": 32, "dropout": 0.0})


def feature_norm(size: str) -> bool:
    """Whether the language model reads standardised features (see ``NeuroLMConfig``)."""
    return not size.startswith("official_")


def _plain(size):
    if size not in NAMES:
        raise UserError(f"size {size!r} is not one of {', '.join(NAMES)}")
    return size.removeprefix("official_")
