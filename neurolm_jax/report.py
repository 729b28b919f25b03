"""One HTML page about a run, or about several beside each other.

  python -m neurolm_jax.report runs/quickstart
  python -m neurolm_jax.report W1 W2 ... [--out comparison.html]

Of one, the folder holds a folder for each stage and the prepared ``data``; writes report.html and results.json into it.
Several are workdirs of ``train``, or folders of them such as runs/quickstart: their curves over each other, the fields
of their configs that differ, what they ended with, and the results of those that were evaluated.
"""

import html
import json
import pathlib

from neurolm_jax.command import argument_parser, run
from neurolm_jax.errors import UserError
from neurolm_jax.outputs import appearing_file


def main() -> None:
    parser = argument_parser("report", __doc__)
    parser.add_argument("runs", type=pathlib.Path, nargs="+", metavar="W", help="folder of a run")
    parser.add_argument("--out", type=pathlib.Path, help="page that compares several; default: comparison.html")
    arguments = parser.parse_args()
    if len(arguments.runs) > 1:
        compare(arguments.runs, arguments.out or pathlib.Path("comparison.html"))
    elif arguments.out:
        raise UserError("--out is for several runs; the page about one is written into its folder")
    else:
        report(arguments.runs[0])


def compare(folders: list[pathlib.Path], file: pathlib.Path) -> None:
    """The page about several runs, its tables printed too."""
    from neurolm_jax.reporting import comparison

    comparison.print_tables(comparison.write_page(comparison.read(folders), file))
    print(file)


def report(folder: pathlib.Path) -> None:
    """The page about one run, its figures as JSON, and its results printed."""
    from neurolm_jax.reporting.console import print_results
    from neurolm_jax.reporting.results import collect

    results = collect(folder)
    write_page(folder, results)
    with appearing_file(folder / "results.json") as file:
        file.write_text(json.dumps(results, indent=1))
    print_results(results["tasks"], results["codebook"], f"{folder}, seed {results['seed']}")
    print(f"{results['seconds']:.0f} s in all; {folder / 'report.html'}, {folder / 'results.json'}")


def write_page(folder: pathlib.Path, results: dict) -> None:
    """``report.html``: results, confusion, codes, reconstructions, losses."""
    import mne

    from neurolm_jax.reporting import figures
    from neurolm_jax.training import metrics

    page = mne.Report(title=f"NeuroLM: {folder.name}", verbose="error")
    page.add_html(_results_html(results), title="Results on held-out EEG", tags=("results",))
    for name, task in results["tasks"].items():
        page.add_figure(figures.confusion(name, task), title=f"Answers: {name}", tags=("results",))
    if results["codebook"]:
        page.add_figure(figures.code_use(results["codebook"]), title="Codebook use", tags=("tokenizer",))
    caption = "EEG that the tokenizer was not trained on, and what the decoders make of its code alone, both z-scored."
    title = "Patches and their reconstruction"
    page.add_figure(figures.reconstruction(_rebuild(folder)), title=title, caption=caption, tags=("tokenizer",))
    for stage in results["stages"]:
        if lines := metrics.read(folder / stage):
            page.add_figure(figures.losses(stage, lines), title=f"Losses: {stage}", tags=("losses",))
    with appearing_file(folder / "report.html") as file:
        page.save(file, open_browser=False, overwrite=True, verbose="error")


def _results_html(results):
    from neurolm_jax.reporting.results import COLUMNS, footnote, sections

    def cells(kind, row):
        return "".join(f"<{kind}>{html.escape(text)}</{kind}>" for text in row)

    tables = []
    for section in sections(results["tasks"]):
        body = "".join(f"<tr>{cells('td', row)}</tr>" for row in section.rows)
        head = f"<caption style='caption-side:top'>{html.escape(section.title)}</caption>"
        head += f"<thead><tr>{cells('th', ('', *COLUMNS))}"
        notes = "<br>".join(map(html.escape, section.notes))
        tables.append(f"<table class='table table-sm'>{head}</tr></thead><tbody>{body}</tbody></table><p>{notes}</p>")
    seconds = ", ".join(f"{part} {value:.0f} s" for part, value in results["seconds_by_part"].items())
    return (
        f"{''.join(tables)}<p>{html.escape(footnote(results['tasks']))}</p>"
        f"<p>Seed {results['seed']}; {seconds}. Not a medical device.</p>"
    )


def _rebuild(folder):
    """Six validation patches of different channels through the trained tokenizer."""
    import numpy as np

    from neurolm_jax.data.eeg_rows import float_patches
    from neurolm_jax.data.streams import stack
    from neurolm_jax.models import quantizer
    from neurolm_jax.models.tokenizer import Tokenizer, reconstruction_targets
    from neurolm_jax.reporting.figures import Rebuilt
    from neurolm_jax.stages.restore import restore_stage
    from neurolm_jax.training.mesh import make_mesh

    stage, weights = restore_stage(folder / "tokenizer", make_mesh())
    rows, _ = stage.sources(train=False)["eeg"]
    eeg = stack([rows[i] for i in range(len(rows))])
    ids = eeg["channel"], eeg["second"], eeg["segment"]
    model, variables = Tokenizer(stage.model_config), {"params": weights.params}
    z = quantizer.normalise(model.apply(variables, float_patches(eeg), *ids, method="encode").z)
    vectors = weights.extra["state"].codebook.vectors
    quantized = vectors[quantizer.nearest(vectors, z)]
    spectrum_rebuilt, raw_rebuilt = model.apply(variables, quantized, *ids, method="decode")
    spectrum, raw = reconstruction_targets(float_patches(eeg), eeg["segment"])

    valid = eeg["segment"].reshape(-1) > 0
    channel = eeg["channel"].reshape(-1)
    # One patch in the middle of each channel's, of as many channels as fit.
    chosen = [np.flatnonzero(valid & (channel == c)) for c in np.unique(channel[valid])]
    chosen = [places[len(places) // 2] for places in chosen]
    chosen = [chosen[i] for i in np.unique(np.linspace(0, len(chosen) - 1, 6).astype(int))]
    arrays = [np.asarray(x).reshape(-1, x.shape[-1])[chosen] for x in (raw, raw_rebuilt, spectrum, spectrum_rebuilt)]
    return Rebuilt(*arrays, channel[chosen])


if __name__ == "__main__":
    run(main)
