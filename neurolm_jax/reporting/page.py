"""The page about one run."""

import pathlib

import jax
import numpy as np

from neurolm_jax.data.eeg_rows import float_patches
from neurolm_jax.data.streams import Steps, without_faults
from neurolm_jax.escaping import escape
from neurolm_jax.models import quantizer
from neurolm_jax.models.tokenizer import Tokenizer, reconstruction_targets
from neurolm_jax.outputs import appearing_file
from neurolm_jax.reporting import figures, html
from neurolm_jax.reporting.figures import Rebuilt
from neurolm_jax.reporting.results import COLUMNS, footnote, sections
from neurolm_jax.stages import corpora
from neurolm_jax.stages.restore import restore_stage
from neurolm_jax.training import metrics
from neurolm_jax.training.mesh import make_mesh

ROWS = 8  # of validation, the first so many, that patches to show are taken from
PATCHES = 6  # shown
METHODS = (
    "NeuroLM, scored: the allowed answer that gets the highest probability. In words: what the model writes by itself;"
    " an answer that is none of the allowed ones is unreadable, and wrong. The other rows are simple methods on the"
    " same windows (frozen features: of the model's own encoder), and what is published, where there is any."
)
MEASURES = (
    "The figures of the tables are best at 1; at chance balanced accuracy is 1 / classes, AUROC 0.5, kappa 0. The 95%"
    " interval is of the balanced accuracy, from drawing whole subjects or recordings anew. Calibration error: how far"
    " probabilities are from the shares of right answers, best at 0; also at the temperature that suits the validation"
    " part."
)
CODES = "Perplexity: of how many codes the use would be as spread, were all used alike."
CONFUSION = "Rows: true class. Columns: answer with the highest probability. Numbers: windows; colours: share of a row."
SPREAD = (
    "Fraction of codes used in a batch, and effective number of dimensions that the vectors before quantization fill;"
    " validation dashed. A run that collapses shows it here first."
)
LOSSES = "Solid: training. Dashed: validation. Names as in metrics.jsonl."
RECONSTRUCTION = (
    "Each row is a patch, one second of one channel: left the EEG, right its amplitude spectrum, and what the decoders"
    " make of its code alone. z-scored over its window, so without a unit. The tokenizer was not trained on this EEG."
)
NOT_SHOWN = "Not shown: the tokenizer's weights were converted, without data, or none of its first rows can be read."


def write(folder: pathlib.Path, results: dict) -> None:
    """``report.html`` in a run's folder: results, confusion, codes, reconstructions, losses.

    Args:
      results: as ``results.collect`` gives them.

    Raises:
      UserError: the run has no checkpoint of a tokenizer, or the EEG that this was validated on is gone.
    """
    import mne

    page = mne.Report(title=f"NeuroLM: {escape(folder.name)}", verbose="error")
    page.add_html(_results(results), title="Results on held-out EEG", tags=("results",))
    for name, task in results["tasks"].items():
        figure = figures.confusion(name, task)
        page.add_figure(figure, title=f"Answers: {name}", caption=CONFUSION, tags=("results",))
    if results["codebook"]:
        figure = figures.code_use(results["codebook"])
        page.add_figure(figure, title="Codebook use", caption=CODES, tags=("tokenizer",))
    title, tags = "Patches and their reconstruction", ("tokenizer",)
    if (rebuilt := rebuild(folder / "tokenizer")) is None:
        page.add_html(html.paragraph(NOT_SHOWN), title=title, tags=tags)
    else:
        page.add_figure(figures.reconstruction(rebuilt), title=title, caption=RECONSTRUCTION, tags=tags)
    for stage in results["stages"]:
        if lines := metrics.read(folder / stage):
            page.add_figure(figures.losses(stage, lines), title=f"Losses: {stage}", caption=LOSSES, tags=("losses",))
            if any("code_vector_rank" in line for line in lines):
                title = f"Codes in use, and dimensions: {stage}"
                page.add_figure(figures.spread(lines), title=title, caption=SPREAD, tags=("losses",))
    with appearing_file(folder / "report.html") as file:
        page.save(file, open_browser=False, overwrite=True, verbose="error")


def _results(results):
    parts = []
    for section in sections(results["tasks"]):
        parts += [html.heading(section.title), html.table(("", *COLUMNS), section.rows), html.paragraph(*section.notes)]
    notes = [note] if (note := footnote(results["tasks"])) else []
    seconds = ", ".join(f"{part} {value:.0f} s" for part, value in results["seconds_by_part"].items())
    notes += [METHODS, MEASURES, f"Seed {results['seed']}. Time taken: {seconds}.", "Not a medical device."]
    return "".join(parts) + html.paragraph(*notes)


def rebuild(workdir: pathlib.Path) -> Rebuilt | None:
    """A few patches of different channels, of the first rows that a tokenizer is validated on, and what it makes of
    their codes. None if it has no such rows, or nothing of them can be read.

    Raises:
      UserError: no checkpoint, or no data where its config says they are.
    """
    stage, weights = restore_stage(workdir, make_mesh())
    if "validation" not in stage.config.data:  # converted weights
        return None
    rows = corpora.eeg_rows(stage.config, train=False)
    eeg = without_faults(Steps({"eeg": (rows, min(len(rows), ROWS))}, 1)[0])["eeg"]

    valid, channel = eeg["segment"].reshape(-1) > 0, eeg["channel"].reshape(-1)
    # One patch in the middle of each channel's, of as many channels as fit.
    chosen = [np.flatnonzero(valid & (channel == c)) for c in np.unique(channel[valid])]
    if not chosen:
        return None
    chosen = [places[len(places) // 2] for places in chosen]
    chosen = [chosen[i] for i in np.unique(np.linspace(0, len(chosen) - 1, PATCHES).astype(int))]
    found = jax.jit(_reconstruct, static_argnums=0)(stage.model_config, weights, eeg)
    return Rebuilt(*(np.asarray(x).reshape(-1, x.shape[-1])[chosen] for x in found), channel[chosen])


def _reconstruct(config, weights, eeg):
    """Patches [B, T, 200] and rebuilt ones, spectra [B, T, 100] and rebuilt ones, all standardised as for training."""
    model, variables = Tokenizer(config), {"params": weights.params}
    ids = eeg["channel"], eeg["second"], eeg["segment"]
    patches = float_patches(eeg)
    z = quantizer.normalise(model.apply(variables, patches, *ids, method="encode").z)
    vectors = weights.extra["state"].codebook.vectors
    quantized = vectors[quantizer.nearest(vectors, z)]
    spectrum_rebuilt, raw_rebuilt = model.apply(variables, quantized, *ids, method="decode")
    spectrum, raw = reconstruction_targets(config, weights.extra["state"], patches, eeg["segment"])
    return raw, raw_rebuilt, spectrum, spectrum_rebuilt
