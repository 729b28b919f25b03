"""Headings, text, tables and figures, as one HTML page that needs nothing else, and as Markdown with the figures beside
it, to be put among other documents."""

import pathlib
from collections.abc import Sequence
from typing import NamedTuple

from neurolm_jax.escaping import escape
from neurolm_jax.outputs import appearing_file
from neurolm_jax.reporting import html as elements


class Text(NamedTuple):
    """A list of sentences under a heading."""

    title: str
    lines: Sequence[str]


class Table(NamedTuple):
    """Rows of cells below a head, under a heading; rows are as long as the head."""

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]


class Picture(NamedTuple):
    """A figure of matplotlib under a heading. file: its name, where figures are files of their own."""

    title: str
    file: str
    figure: object


Part = Text | Table | Picture


def write_html(title: str, parts: Sequence[Part], file: pathlib.Path) -> None:
    """Write one page that holds all parts, figures included, and loads nothing from elsewhere."""
    import mne

    page = mne.Report(title=escape(title), verbose="error")
    for part in parts:
        if isinstance(part, Picture):
            page.add_figure(part.figure, title=part.title)
        else:
            page.add_html(_html(part), title=part.title)
    with appearing_file(file) as unfinished:
        page.save(unfinished, open_browser=False, overwrite=True, verbose="error")


def write_markdown(title: str, parts: Sequence[Part], file: pathlib.Path) -> None:
    """Write all parts as Markdown, with the figures as PNG files beside it."""
    lines = [f"# {title}"]
    for part in parts:
        lines += ["", f"## {part.title}", ""]
        if isinstance(part, Text):
            lines += [f"- {line}" for line in part.lines]
        elif isinstance(part, Table):
            lines += [_row(part.head), _row(["---"] * len(part.head)), *map(_row, part.rows)]
        else:
            with appearing_file(file.parent / part.file) as picture:
                part.figure.savefig(picture, dpi=100)
            lines.append(f"![{part.title}]({part.file})")
    with appearing_file(file) as unfinished:
        unfinished.write_text("\n".join(lines) + "\n")


def _row(cells):
    return "| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |"


def _html(part):
    return elements.bullets(part.lines) if isinstance(part, Text) else elements.table(part.head, part.rows)
