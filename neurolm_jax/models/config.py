"""Shapes and choices of the models, as frozen dataclasses.

The defaults are the paper's base size with this project's corrections. ``official_*`` sizes (see ``configs/sizes.py``)
reproduce the released models instead.
"""

import dataclasses

PATCH_SAMPLES = 200  # one second at 200 Hz
# What the backward pass computes anew, to save memory: nothing; all but matrix products and attention; everything.
REMAT = ("none", "products", "all")
PATCH_NORMS = ("patch", "row")
SPECTRUM_TARGETS = ("log_power", "amplitude")
SUMMARY_READS = ("features", "spectrum", "rhythms", "connectivity", "waveform")
HIGHEST = 45  # Hz, up to which log power is read: above, recordings differ in their filters more than in their EEG
SPECTRUM_BINS = 100  # lower half of the 200-bin amplitude spectrum (paper, section 2.2)


def _check_heads(name: str, width: int, heads: int) -> None:
    if width % heads:
        raise ValueError(f"{name}: width {width} is not divisible by {heads} heads")


def _check_remat(name: str, remat: str) -> None:
    if remat not in REMAT:
        raise ValueError(f"{name}: remat must be one of {', '.join(REMAT)}, not {remat!r}")


@dataclasses.dataclass(frozen=True)
class EncoderConfig:
    """The neural transformer that turns patches into features (paper, section 2.2)."""

    layers: int = 12  # transformer blocks
    heads: int = 12  # of attention in a block
    width: int = 768  # of hidden states and features
    channels: int = 256  # rows of the channel embedding
    seconds: int = 64  # rows of the time embedding: no window is longer
    # "patch" normalises every patch alone and hands its level (mean and log standard deviation) to the embedding, so
    # that padding, packing and later seconds do not matter; "row" takes the group norm's statistics over the whole row,
    # padding included, as the released models do, whose T3, T4, T5 and T6 are not T7, T8, P7 and P8 either.
    patch_norm: str = "patch"
    causal: bool = True  # a patch sees its own and earlier seconds only; the released models see the whole segment
    dtype: str = "float32"  # of what is computed, float32 or bfloat16; parameters are float32
    remat: str = "none"  # what the backward pass computes anew, to save memory: none, products or all

    @property
    def literal_names(self) -> bool:
        """Whether T3, T4, T5 and T6 have rows of the channel tables for themselves, as in the released models, instead
        of those of T7, T8, P7 and P8."""
        return self.patch_norm == "row"

    def __post_init__(self):
        if self.patch_norm not in PATCH_NORMS:
            raise ValueError(f"patch_norm must be 'patch' or 'row', not {self.patch_norm!r}")
        _check_heads("encoder", self.width, self.heads)
        _check_remat("encoder", self.remat)


@dataclasses.dataclass(frozen=True)
class TokenizerConfig:
    """Encoder, quantizer, both decoders and the domain classifier."""

    encoder: EncoderConfig = EncoderConfig()
    decoder_layers: int = 4  # transformer blocks of each decoder, in time and in frequency
    codes: int = 8192  # entries of the codebook
    code_width: int = 128  # dimensions of an entry
    domain_width: int = 256  # hidden units of the classifier that tells EEG from text
    decay: float = 0.99  # of the codebook's moving averages
    dead_below: float = 0.05  # a code used less than this share of the mean usage is revived; 0 revives none
    # What the frequency decoder rebuilds: "amplitude" is the paper's, z-scored over the whole sample, in which the
    # slowest waves of the loudest channels drown the rest; "log_power" is that of the windowed patch, each bin
    # standardised over the corpus, so that every frequency and electrode counts.
    spectrum_target: str = "amplitude"
    spectrum_head: bool = False  # a linear layer reads the log power from the features themselves, before the codes

    @property
    def reads_log_power(self) -> bool:
        """Whether anything is trained on log power, so that its statistics are wanted."""
        return self.spectrum_head or self.spectrum_target == "log_power"

    def __post_init__(self):
        if self.spectrum_target not in SPECTRUM_TARGETS:
            raise ValueError(
                f"spectrum_target must be one of {', '.join(SPECTRUM_TARGETS)}, not {self.spectrum_target!r}"
            )


@dataclasses.dataclass(frozen=True)
class LanguageModelConfig:
    """GPT-2, its vocabulary widened by the EEG codes."""

    layers: int = 12  # transformer blocks
    heads: int = 12  # of attention in a block
    width: int = 768  # of hidden states
    vocabulary: int = 50304  # GPT-2's 50,257 tokens, [SEP], and padding to a multiple of 64
    codes: int = 0  # EEG codes appended to the output classes; 0 for a plain language model with tied embeddings
    positions: int = 1024  # rows of the position embedding: no text is longer
    approximate_gelu: bool = False  # GPT-2's own form of GELU, by a tanh; NeuroLM goes on with the exact one
    dropout: float = 0.0  # share of embeddings and of each block's outputs left out in training
    dtype: str = "float32"  # of what is computed, float32 or bfloat16; parameters are float32
    remat: str = "none"  # what the backward pass computes anew, to save memory: none, products or all
    lora_rank: int = 0  # of the low-rank terms that are trained instead of the weights; 0 trains the weights
    lora_alpha: float = 16.0  # the terms are multiplied by lora_alpha / lora_rank

    @property
    def lora_scale(self) -> float:
        """What the low-rank terms are multiplied by."""
        return self.lora_alpha / max(self.lora_rank, 1)

    def __post_init__(self):
        _check_heads("language model", self.width, self.heads)
        _check_remat("language model", self.remat)
        if self.lora_rank < 0:
            raise ValueError(f"language.lora_rank must not be negative, not {self.lora_rank}")


@dataclasses.dataclass(frozen=True)
class SummaryConfig:
    """The window's summary that is added to the token before the question; the released models have none.

    ``noise`` is the deviation of what is added in training to all that is read but the features, in units of its own;
    ``seconds`` the rows of the table for seconds of the waveform. Other sections of a config tell both.
    """

    # What it reads, of features and spectrum (each electrode's own), rhythms (band power of virtual electrodes),
    # connectivity (partial correlations) and waveform (slow, locked to the window's beginning); () for no summary.
    reads: tuple[str, ...] = ()
    width: int = 256  # of the tables into which weights for electrodes and features factor
    virtual_electrodes: int = 32  # spatial filters whose rhythms are read; rank of the weights of pairs
    dropout: float = 0.0  # share of windows for which a reading is left out in training, each by itself
    noise: float = 0.0
    seconds: int = 64

    def __post_init__(self):
        if unknown := sorted(set(self.reads) - set(SUMMARY_READS)):
            raise ValueError(
                f"summary.reads must be of {', '.join(SUMMARY_READS)}, not {', '.join(map(repr, unknown))}"
            )


@dataclasses.dataclass(frozen=True)
class NeuroLMConfig:
    """Language model over the frozen encoder's features."""

    language: LanguageModelConfig = LanguageModelConfig(codes=8192)
    encoder_width: int = 768  # of the features
    channels: int = 256  # rows of the channel embedding
    # Standardise each feature dimension with the statistics gathered while the tokenizer trained. The released models
    # do not.
    feature_norm: bool = True
    summary: SummaryConfig = SummaryConfig()
