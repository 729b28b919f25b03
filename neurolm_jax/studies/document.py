"""Headings, text, tables and figures, as one HTML page that needs nothing else, and as Markdown with the figures beside
it, to be put among other documents."""

import html
import pathlib
from collections.abc import Sequence
from typing import NamedTuple

from neurolm_jax.outputs import appearing_file


class Text(NamedTuple):
    title: str
    lines: Sequence[str]


class Table(NamedTuple):
    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]


class Picture(NamedTuple):
    """figure: of matplotlib."""

    title: str
    file: str
    figure: object


Part = Text | Table | Picture


def write_html(title: str, parts: Sequence[Part], file: pathlib.Path) -> None:
    import mne

    page = mne.Report(title=title, verbose="error")
    for part in parts:
        if isinstance(part, Picture):
            page.add_figure(part.figure, title=part.title)
        else:
            page.add_html(_html(part), title=part.title)
    with appearing_file(file) as unfinished:
        page.save(unfinished, open_browser=False, overwrite=True, verbose="error")


def write_markdown(title: str, parts: Sequence[Part], file: pathlib.Path) -> None:
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
    if isinstance(part, Text):
        return "<ul>" + "".join(f"<li>{html.escape(line)}</li>" for line in part.lines) + "</ul>"

    def cells(kind, row):
        return "".join(f"<{kind}>{html.escape(str(cell))}</{kind}>" for cell in row)

    body = "".join(f"<tr>{cells('td', row)}</tr>" for row in part.rows)
    return (
        f"<table class='table table-sm'><thead><tr>{cells('th', part.head)}</tr></thead><tbody>{body}</tbody></table>"
    )
