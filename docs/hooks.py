"""What MkDocs does here beside its own: pages of the root, and maths as MathML, which browsers draw by themselves."""

import html
import pathlib
import re

from latex2mathml.converter import convert
from mkdocs.structure.files import File

ROOT = pathlib.Path(__file__).parents[1]
PAGES = {"index.md": "README.md", "contributing.md": "CONTRIBUTING.md", "changelog.md": "CHANGELOG.md"}
MATHS = re.compile(r'<(span|div) class="arithmatex">\\([(\[])(.*?)\\[)\]]</\1>', re.DOTALL)


def on_files(files, config):
    """README.md and its like become pages, their links as seen from docs/."""
    for page, source in PAGES.items():
        text = (ROOT / source).read_text().replace("](docs/", "](").replace('src="docs/', 'src="')
        for other, linked in PAGES.items():
            text = text.replace(f"]({linked})", f"]({other})")
        files.append(File.generated(config, page, content=text))
    return files


def on_page_content(content, page, config, files):
    """LaTeX to MathML; what cannot be read ends the build."""
    return MATHS.sub(lambda match: _mathml(*match.groups()), content)


def _mathml(_, bracket, latex):
    return convert(html.unescape(latex).strip(), display="inline" if bracket == "(" else "block")
