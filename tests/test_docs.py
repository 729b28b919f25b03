"""The documentation tells what there is: pages and code are held against each other."""

import ast
import importlib
import pathlib
import re
import runpy
import subprocess
import sys

import pytest

from neurolm_jax import configuration
from neurolm_jax.configuration import STAGES

ROOT = pathlib.Path(__file__).parents[1]
DOCS, PACKAGE = ROOT / "docs", ROOT / "neurolm_jax"
# Imports that go up the map, as it tells itself.
MEANT = {("evaluate", "train"), ("training", "stages"), ("configuration", "models"), ("__init__", "inference")}


def first_cells(page, heading=None):
    """Words in backticks in the first cells of a page's tables, of those below a heading."""
    text = (DOCS / page).read_text()
    text = text.split(f"\n## {heading}\n")[1].split("\n## ")[0] if heading else text
    cells = re.findall(r"^\| ([^|]*`[^|]*) \|", text, re.MULTILINE)
    return [word for cell in cells for word in re.findall(r"`([^`]+)`", cell)]


def on_the_map():
    """Modules and folders of the package: verbs, nouns in the map's order, what all use."""
    headings = "Verbs: what a user runs", "Nouns: what the verbs are made of", "Used by all"
    # A verb's table is headed by how it is called; a noun's first cell is followed by files to begin with.
    return [[cell for cell in first_cells("code.md", heading) if " " not in cell] for heading in headings]


def test_the_map_names_every_module_and_folder_and_nothing_else():
    there = {path.name for path in PACKAGE.glob("*.py")}
    there |= {f"{path.parent.name}/" for path in PACKAGE.glob("*/__init__.py")}
    assert sorted(sum(on_the_map(), [])) == sorted(there)
    begins = re.findall(r"^\| `(\w+)/` \|.*\| (.*) \|$", (DOCS / "code.md").read_text(), re.MULTILINE)
    named = [PACKAGE / folder / file for folder, files in begins for file in re.findall(r"`([^`]+\.py)`", files)]
    assert len(named) >= 10 and all(file.is_file() for file in named), named


def test_imports_go_down_the_map():
    verbs, nouns, shared = ([name.removesuffix("/").removesuffix(".py") for name in names] for names in on_the_map())
    rank = dict.fromkeys(verbs, 0) | {name: place for place, name in enumerate(nouns, start=1)}
    rank |= dict.fromkeys(shared, len(rank))
    up = set()
    for file in PACKAGE.rglob("*.py"):
        here = file.relative_to(PACKAGE).parts[0].removesuffix(".py")
        for there in imported(file):
            if there != here and (rank[there] < rank[here] or rank[there] == rank[here] == 0):
                up.add((here, there))
    assert up == MEANT


def imported(file):
    """Modules and folders of the package that a file imports, also inside of functions."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "neurolm_jax":
            parts = node.module.split(".")[1:]
            yield from parts[:1] or [alias.name for alias in node.names if alias.name != "__version__"]


@pytest.mark.parametrize("stage", STAGES)
def test_the_stages_pages_name_every_field_and_no_other(stage):
    fields = {name for name, _ in configuration.flat(importlib.import_module(f"configs.{stage}").get_config())}
    own, shared = (set(first_cells(f"stages/{page}.md", "Fields")) for page in (stage, "index"))
    assert shared <= fields and own <= fields
    # The later stages' pages point to those before for the models' sections.
    models = {name for name in fields if name.startswith(("tokenizer.", "language."))}
    told = own | shared | (models if stage in ("pretrain", "instruct") else set())
    assert told == fields
    everywhere = set().union(*(first_cells(f"stages/{page}.md", "Fields") for page in STAGES))
    assert models <= everywhere


def test_the_official_commands_are_understood():
    """The configs, fields and task names of docs/official.md are there."""
    text = (DOCS / "official.md").read_text()
    configs = re.findall(r"configs/(\w+)\.py:(\w+)", text)
    assert {stage for stage, _ in configs} == set(STAGES)
    fields = set()
    for stage, size in configs:
        fields |= {name for name, _ in configuration.flat(importlib.import_module(f"configs.{stage}").get_config(size))}
    named = set(re.findall(r"--config\.([\w.]+)", text))
    assert len(named) > 15 and named <= fields, named - fields
    for file in re.findall(r"`((?:models|stages|training|data|eeg|corpus|inference)/[\w/.]*)`", text):
        assert (PACKAGE / file).exists(), file


def test_the_picture_is_what_its_script_draws():
    draw = runpy.run_path(str(DOCS / "pictures" / "stages.py"))["draw"]
    assert (DOCS / "pictures" / "stages.svg").read_text() == draw()


def test_links_between_pages_lead_somewhere():
    """Of README and the like too, as they are read outside of the site."""
    pages = [*ROOT.glob("*.md"), *DOCS.rglob("*.md")]
    links = [(page, link) for page in pages for link in re.findall(r"\]\(([^)#\s]+)", page.read_text())]
    local = [(page, link) for page, link in links if not re.match(r"\w+:", link)]
    assert len(local) > 40
    lost = [(page.name, link) for page, link in local if not (page.parent / link).is_file()]
    assert not lost, lost


def test_what_is_type_checked_is_what_the_pages_show():
    import tomllib

    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["mypy"]
    shown = re.findall(r"^::: (neurolm_jax[\w.]*)", "\n".join(p.read_text() for p in DOCS.glob("api/*.md")), re.M)
    assert len(shown) > 20
    for name in shown:
        path = name.replace(".", "/")
        path = next(p for p in (f"{path}.py", path, "neurolm_jax/__init__.py") if (ROOT / p).exists())
        assert any(path == f or path.startswith(f"{f}/") for f in settings["files"]), f"{name} is not type-checked"


@pytest.mark.slow
def test_the_site_is_built_without_a_warning_and_loads_nothing_from_elsewhere(tmp_path):
    """In need of docs/requirements.txt."""
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", tmp_path / "site"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    pages = list((tmp_path / "site").rglob("*.html"))
    assert len(pages) > 25
    for page in pages:
        text = page.read_text()
        assert not re.search(r'(?:src|<link[^>]*href)="https?:', text), page
        assert "arithmatex" not in text, f"{page}: a formula that was not drawn"
