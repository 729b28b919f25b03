"""A small scaling study on the quickstart's EEG: four sizes, three amounts of data, two seeds, on a CPU.

  python -m neurolm_jax.scaling --sweep configs/sweeps/quickstart.py:tokenizer --workdir runs/sweeps

The argument is the stage: tokenizer (24 runs and 4 of language models before them), pretrain or instruct. It reads what
launch/quickstart.sh prepared; --set data.root=DIR names another folder. Half the data goes with half the operations,
and runs of one budget cost the same whatever their size. Learning rates follow one rule and are tuned for no size.
"""

from neurolm_jax.errors import UserError
from neurolm_jax.studies.grids import Amount, grid
from neurolm_jax.studies.sweep import Run, Sweep

# Width, layers and heads, of the tokenizer's encoder and decoders or of the language model.
SIZES = {"16x1": (16, 1, 2), "32x2": (32, 2, 4), "64x2": (64, 2, 4), "96x3": (96, 3, 4)}
SHARES = (0.25, 0.5, 1.0)
COMPUTE = {"tokenizer": 1.2e12, "pretrain": 1.4e12, "instruct": 1.6e12}  # operations of a run at all data
METRICS = {
    "tokenizer": ("validation_frequency_loss", "validation_raw_loss"),
    "pretrain": ("validation_eeg_loss",),
    "instruct": ("validation_answer_loss",),
}
OFTEN = {"evaluate_every": 20, "log_every": 20, "checkpoint_every": 500}


def get_config(stage: str = "tokenizer") -> Sweep:
    if stage not in METRICS:
        raise UserError(f"quickstart.py:{stage}: the stages are {', '.join(METRICS)}")
    sizes = {name: _CHAINS[stage](*size) for name, size in SIZES.items()}
    amounts = [Amount(share, share * COMPUTE[stage]) for share in SHARES]
    metrics = {stage: METRICS[stage]}
    return Sweep(f"Scaling of {stage}", "law", grid(sizes, amounts, (0, 1)), metrics, value="lowest")


def _run(stage, fields=(), **initial):
    return Run(stage, f"configs/quickstart.py:{stage}", dict(fields), initial)


def _language_fields(width, layers, heads):
    return {"language.width": width, "language.layers": layers, "language.heads": heads}


def _language(*size):
    return _run("language", _language_fields(*size) | {"steps": 100, "warmup_steps": 10})


def _rate(width, at_96):
    """A learning rate, by the root of the width."""
    return {"learning_rate": round(at_96 * (96 / width) ** 0.5, 6)}


def _tokenizer(width, layers, heads):
    encoder = {"width": width, "layers": layers, "heads": heads}
    fields = {f"tokenizer.encoder.{name}": value for name, value in encoder.items()}
    return _run("tokenizer", fields | _rate(width, 1e-3) | OFTEN, language=_language(width, layers, heads))


def _pretrain(*size):
    """Over the codes of one tokenizer, the quickstart's own: losses over other codes would not compare."""
    tokenizer = _run("tokenizer", language=_run("language"))
    fields = _language_fields(*size) | _rate(size[0], 1e-3) | OFTEN
    return _run("pretrain", fields, language=_language(*size), tokenizer=tokenizer)


def _instruct(*size):
    """Each from a pre-trained model of its own size that has seen all data."""
    fields = _language_fields(*size) | _rate(size[0], 4e-3) | OFTEN
    fields |= {"data.splits": ("train",)}  # the quickstart's own last stage learns from the validation part too
    return _run("instruct", fields, pretrain=_pretrain(*size))


_CHAINS = {"tokenizer": _tokenizer, "pretrain": _pretrain, "instruct": _instruct}
