"""What MkDocs does here beside its own: pages of the root, and formulas as pictures made while the pages are built."""

import functools
import html
import pathlib
import re

from mkdocs.structure.files import File

ROOT = pathlib.Path(__file__).parents[1]
PAGES = {"index.md": "README.md", "contributing.md": "CONTRIBUTING.md", "changelog.md": "CHANGELOG.md"}
FORMULA = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL)
POINTS = 10  # size of letters that formulas are drawn with; a page scales them to its own


def on_files(files, config):
    """README.md and its like become pages, their links as seen from docs/."""
    for page, source in PAGES.items():
        text = (ROOT / source).read_text().replace("](docs/", "](")
        for other, linked in PAGES.items():
            text = text.replace(f"]({linked})", f"]({other})")
        files.append(File.generated(config, page, content=text))
    return files


def on_page_content(content, page, config, files):
    """Formulas in their place; one that cannot be read ends the build."""
    return FORMULA.sub(lambda match: _formula(match[1], " ".join(html.unescape(match[2]).split())), content)


@functools.cache
def _formula(tag, latex):
    """A formula as SVG of its letters' outlines, which needs no font and no script where it is read."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import TextPath

    latex = latex.replace(r"\frac", r"\dfrac") if tag == "div" else latex
    outline = TextPath((0, 0), f"${latex}$", size=POINTS, prop=FontProperties(math_fontfamily="cm"))
    left, bottom, right, top = outline.get_extents().extents  # above and below the line of writing, which is 0
    drawn = "".join(_DRAWN[int(code)] + ",".join(f"{x:.2f}" for x in _down(ends)) for ends, code in _segments(outline))
    box = f'viewBox="{left:.2f} {-top:.2f} {right - left:.2f} {top - bottom:.2f}"'
    style = f"width:{(right - left) / POINTS:.3f}em;height:{(top - bottom) / POINTS:.3f}em"
    style += f";vertical-align:{bottom / POINTS:.3f}em" if tag == "span" else ""
    picture = f'<svg role="img" aria-label="{html.escape(latex)}" {box} style="{style}">'
    return f'<{tag} class="formula">{picture}<path fill="currentColor" d="{drawn}"/></svg></{tag}>'


_DRAWN = {1: "M", 2: "L", 3: "Q", 4: "C", 79: "Z"}  # letters of SVG for matplotlib's codes


def _segments(outline):
    """(points, code) of each piece; where an outline is closed there is no point."""
    return (([] if code == 79 else ends, code) for ends, code in outline.iter_segments(simplify=False))


def _down(ends):
    """Points x, y, x, y, ... with y downwards, as SVG has it."""
    return [-value if i % 2 else value for i, value in enumerate(ends)]
