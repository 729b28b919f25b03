"""Answers about a recording: as a table, as a figure, and as annotations that other programs open."""

import pathlib
from typing import TYPE_CHECKING

import numpy as np

from neurolm_jax.eeg.quality import describe
from neurolm_jax.eeg.tasks.prompts import stem_of
from neurolm_jax.errors import UserError
from neurolm_jax.escaping import escape
from neurolm_jax.inference.asking import NOTICE, Answers
from neurolm_jax.outputs import appearing_file

if TYPE_CHECKING:  # MNE and matplotlib take seconds to import
    import mne
    from matplotlib.figure import Figure

FIGURES = (".png", ".pdf", ".svg")
ANNOTATIONS = (".txt", "-annot.fif", ".edf")
SHOWN = 60  # windows in a table
TRACES = 12  # channels in a figure
POINTS = 8000  # of a trace


def print_answers(found: Answers) -> None:
    """A table in the terminal: the first windows one by one, then the whole recording, and what was read of it."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    console = Console(markup=False)  # names of files and answers are no markup

    def say(text):
        console.print(escape(text), highlight=False)

    say(f"{found.recording}: {stem_of(found.question)}")
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    table.add_column("time", no_wrap=True)
    table.add_column("answer", overflow="fold")
    scored = found.probabilities is not None
    if scored:
        table.add_column("probability", justify="right")
        others = len(found.choices) > 2
        if others:
            table.add_column("next", overflow="fold")
    for i, (onset, text) in list(enumerate(zip(found.onsets.tolist(), found.texts)))[:SHOWN]:
        marks, text = describe(found.marks[i]) if found.marks else "", escape(text)
        row = [f"{clock(onset)} - {clock(onset + found.seconds)}", f"{text} ({marks})" if marks else text]
        if scored:
            p = found.probabilities[i]
            order = p.argsort()[::-1]
            row.append(f"{p[order[0]]:.2f}")
            if others:
                row.append(escape(f"{found.choices[order[1]]} {p[order[1]]:.2f}"))
        table.add_row(*row)
    console.print(table)
    if len(found.texts) > SHOWN:
        say(f"and {len(found.texts) - SHOWN:,} windows more; --json has them all")
    if scored:
        shares = ", ".join(f"{choice} {p:.2f}" for choice, p in found.overall.items())
        say(f"whole recording: {found.answer} ({shares}; mean of {len(found.texts):,} windows)")
    names = ", ".join(found.channels[:8]) + (" ..." if len(found.channels) > 8 else "")
    say(f"{len(found.channels)} channels used ({names}), {len(found.left_out)} left out")
    for note in found.notes:
        say(note)
    say(NOTICE)


def clock(seconds: float) -> str:
    """Hours, minutes and seconds, with tenths where there are any."""
    tenths = round(seconds * 10)
    rest, tenths = divmod(tenths, 10)
    text = f"{rest // 3600:d}:{rest // 60 % 60:02d}:{rest % 60:02d}"
    return f"{text}.{tenths}" if tenths else text


def check_figure(file: pathlib.Path) -> None:
    """Refuse a file that no figure can be written into.

    Raises:
      UserError: its name has another suffix.
    """
    if file.suffix.lower() not in FIGURES:
        raise UserError(f"{file}: a figure is one of {', '.join(FIGURES)}")


def check_annotations(file: pathlib.Path) -> None:
    """Refuse a file that no annotations can be written into.

    Raises:
      UserError: its name ends otherwise.
    """
    if not file.name.endswith(ANNOTATIONS):
        raise UserError(f"{file}: annotations are one of {', '.join(ANNOTATIONS)}")


def write_annotations(found: Answers, file: pathlib.Path) -> None:
    """A window each: MNE's text or FIF, or EDF+ with annotations and no signal."""
    annotations = found.to_annotations()
    with appearing_file(file) as unfinished:
        if file.suffix == ".edf":
            import edfio

            rows = zip(annotations.onset.tolist(), annotations.duration.tolist(), annotations.description)
            rows = [edfio.EdfAnnotation(onset, duration, str(text)) for onset, duration, text in rows]
            # Viewers take onsets from the recording's own start; EDF has dates from 1985 to 2084.
            start = found.start if found.start and 1985 <= found.start.year <= 2084 else None
            told = {"recording": edfio.Recording(startdate=start.date()), "starttime": start.time()} if start else {}
            edfio.Edf([], annotations=rows, **told).write(unfinished)
            return
        if file.suffix == ".txt":  # MNE reads no commas, number signs or other than ASCII there
            words = str.maketrans({",": ";", "#": " "})
            plain = [text.translate(words).encode("ascii", "replace").decode() for text in annotations.description]
            annotations.description = np.array(plain)
        annotations.save(unfinished, overwrite=True, verbose="error")


def write_figure(found: Answers, raw: "mne.io.BaseRaw", file: pathlib.Path) -> None:
    """Probability of each answer over time, above the channels that were read (as recorded, filtered for the eye).

    Args:
      raw: the recording that the answers are about.
      file: of a suffix that ``check_figure`` lets pass.
    """
    with appearing_file(file) as unfinished:
        draw(found, raw).savefig(unfinished, dpi=130)


def draw(found: Answers, raw: "mne.io.BaseRaw") -> "Figure":
    """The figure of ``write_figure``: time in seconds, traces in microvolts; free text is written above the traces."""
    from matplotlib.figure import Figure

    places = np.unique(np.linspace(0, len(found.channels) - 1, TRACES).round().astype(int))
    names = [found.channels[i] for i in places]
    figure = Figure(figsize=(11, 2.2 + 0.42 * len(names) + 0.6), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(2.2, 0.42 * len(names) + 0.6))
    edges = np.append(found.onsets, found.onsets[-1] + found.seconds)
    if found.probabilities is not None:
        middles = found.onsets + found.seconds / 2
        for k, choice in enumerate(found.choices):
            above.plot(middles, found.probabilities[:, k], "o-", color=f"C{k}", markersize=3, linewidth=1, label=choice)
        above.set(ylim=(-0.03, 1.03), ylabel="probability")
        above.legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
    else:
        for onset, text in list(zip(found.onsets, found.texts))[:: max(1, len(found.texts) // 20)]:
            above.text(onset, 0.05, escape(text[:60]), rotation=60, fontsize=6, va="bottom")
        above.set(ylim=(0, 1), yticks=[])
    above.set(title=escape(stem_of(found.question)))
    above.title.set_fontsize(9)

    shown = raw.copy().pick(names, verbose="error").load_data(verbose="error")
    high = min(40.0, shown.info["sfreq"] / 2.5)
    shown.filter(0.5, high, picks="all", verbose="error")
    x = shown.get_data() * 1e6
    step = max(1, x.shape[1] // POINTS)
    spread = 6 * float(np.median(x.std(axis=1))) or 1.0
    for place, trace in enumerate(x):
        below.plot(shown.times[::step], trace[::step] - place * spread, color="0.25", linewidth=0.4)
    below.set_yticks([-place * spread for place in range(len(names))], list(map(escape, names)), fontsize=7)
    more = f", {len(names)} of {len(found.channels)} channels" if len(names) < len(found.channels) else ""
    below.set(
        xlabel=f"seconds{more}; {spread:.0f} microvolts between traces. {NOTICE}", ylim=(-len(names) * spread, spread)
    )
    below.set_xlim(0, max(float(edges[-1]), float(shown.times[-1])))
    return figure
