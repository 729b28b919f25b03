"""What pages show, as HTML."""

import html
from collections.abc import Sequence

from neurolm_jax.escaping import escape


def text(value: object) -> str:
    """A value's text as HTML shows it, whatever characters it has."""
    return html.escape(escape(str(value), keep="\n\t"))


def table(head: Sequence[object], rows: Sequence[Sequence[object]]) -> str:
    """A table of escaped texts. Of every row the first cell names it and stands left; the others, mostly numbers, stand
    right. One that is wider than the page is scrolled."""

    def cells(kind, row):
        first, *rest = map(text, row)
        others = "".join(f"<{kind} style='text-align:right;padding-left:2em'>{cell}</{kind}>" for cell in rest)
        return f"<tr><{kind}>{first}</{kind}>{others}</tr>"

    body = "".join(cells("td", row) for row in rows)
    whole = f"<thead>{cells('th', head)}</thead><tbody>{body}</tbody>"
    return f"<div style='overflow-x:auto'><table class='table table-sm' style='width:auto'>{whole}</table></div>"


def paragraph(*lines: str) -> str:
    """Escaped lines, one below the other; "" of none."""
    return f"<p>{'<br>'.join(map(text, lines))}</p>" if lines else ""


def bullets(lines: Sequence[str]) -> str:
    """A list of escaped texts."""
    return "<ul>" + "".join(f"<li>{text(line)}</li>" for line in lines) + "</ul>"


def heading(title: str) -> str:
    """An escaped heading within a part of a page."""
    return f"<h5>{text(title)}</h5>"
