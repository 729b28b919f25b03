"""From prepared shards to the page: evaluate and report over tiny stages."""

import html.parser
import json
import pathlib
import re
import shutil

import numpy as np
import pytest
from small_data import NAMES

from neurolm_jax import report
from neurolm_jax.data.eeg_rows import EEGRows
from neurolm_jax.data.streams import Damaged
from neurolm_jax.inference.evaluation import Options, evaluate
from neurolm_jax.reporting import html as ours
from neurolm_jax.reporting import page
from neurolm_jax.reporting.results import collect
from neurolm_jax.stages import corpora
from neurolm_jax.training import metrics


@pytest.fixture(scope="module")
def run(runs):
    found = evaluate(runs / "instruct")
    file = runs / "instruct" / "evaluation.json"
    file.write_text(json.dumps(found))
    yield runs
    file.unlink()  # other tests ask the same model, and would be given its temperatures


def test_evaluation_reads_every_test_window(run):
    found = json.loads((run / "instruct" / "evaluation.json").read_text())
    assert {name: task["n_test"] for name, task in found["tasks"].items()} == {"blink": 12, "scp1": 12, "eyes": 12}
    for task in found["tasks"].values():
        assert sum(map(sum, task["confusion"])) == task["n_test"]
        assert 0 <= task["balanced_accuracy"] <= 1 and 0 <= task["unreadable"] <= 1
    assert 0 < found["codebook"]["used_fraction"] <= 1
    assert sum(found["codebook"]["counts"]) == 12 * 8 + 12 * 3 + 12 * 14


@pytest.mark.parametrize("stage", ["language", "tokenizer", "pretrain", "instruct"])
def test_the_pages_name_what_is_logged(runs, stage):
    pages = [pathlib.Path(__file__).parents[1] / "docs" / "stages" / f"{page}.md" for page in ("index", stage)]
    told = {word for page in pages for word in re.findall(r"`([a-z_]+)`", page.read_text())}
    logged = {name.removeprefix("validation_") for line in metrics.read(runs / stage) for name in line}
    logged = {re.sub(rf"_({'|'.join(NAMES)})$", "", name) for name in logged}  # metrics of each task
    assert len(logged) > 12 and logged <= told, logged - told


def test_one_task_on_validation(run):
    found = evaluate(run / "instruct", None, ["scp1"], Options("validation", quick=True))
    assert list(found["tasks"]) == ["scp1"] and found["split"] == "validation"


def test_page_and_results(run, capsys):
    results = collect(run)
    assert set(results["stages"]) == {"language", "tokenizer", "pretrain", "instruct"}
    for stage, final in results["stages"].items():
        assert final["loss"] == metrics.read(run / stage)[-1]["loss"]
    assert results["seconds"] > 0 and results["seed"] == 0
    assert list(results["seconds_by_part"]) == ["prepare", *results["stages"], "evaluate"]
    report.report(run)
    assert json.loads((run / "results.json").read_text()) == json.loads(json.dumps(results))
    assert "blink: 12 windows" in capsys.readouterr().out
    written = (run / "report.html").read_text()
    for title in ("Results on held-out EEG", "Codebook use", "Patches and their reconstruction", "Losses: instruct"):
        assert title in written
    assert written.count("<img") + written.count("<svg") >= 8 and page.NOT_SHOWN not in written
    assert not list(run.glob(".*"))
    shown = texts(written)
    for task in results["tasks"].values():
        assert f"{task['balanced_accuracy']:.3f}" in shown
    assert "weighted F1" in shown and page.CODES in shown and page.RECONSTRUCTION in "".join(shown)


class Texts(html.parser.HTMLParser):
    def __init__(self):
        super().__init__()
        self.found = []

    def handle_data(self, data):
        self.found.append(data)


def texts(written):
    """What stands between the tags of a page."""
    parser = Texts()
    parser.feed(written)
    return parser.found


def test_tables_show_texts_as_they_are():
    head, rows = ["", "<b>run</b> & 'other'"], [["data.root", "</td><script>alert(1)</script>"], ["steps", 7]]
    written = ours.table(head, rows) + ours.heading("a < b") + ours.paragraph("one", "<two>")
    cells = [str(cell) for row in (head, *rows) for cell in row if cell]
    assert texts(written) == [*cells, "a < b", "one", "<two>"]
    assert ours.paragraph() == ""


@pytest.mark.parametrize("damaged", [(), (1,), (0, 1, 2)])
def test_a_few_rows_are_read_for_the_patches_shown(run, monkeypatch, damaged):
    """Not the whole corpus; and of rows with damaged records, what there is."""
    few, read = 3, []
    whole = EEGRows.__getitems__

    def counted(rows, indices):
        read.extend(indices)
        return [spoil(row) if index in damaged else row for index, row in zip(indices, whole(rows, indices))]

    def spoil(row):
        row = {name: np.zeros_like(array) for name, array in row.items()} if len(damaged) == few else row
        return Damaged(row, ["a record"])

    monkeypatch.setattr(EEGRows, "__getitems__", counted)
    monkeypatch.setattr(page, "ROWS", few)
    monkeypatch.setattr(corpora, "eeg_rows", made := Made(corpora.eeg_rows))
    rebuilt = page.rebuild(run / "tokenizer")
    assert len(made.rows) > few and sorted(read) == list(range(few))
    if len(damaged) == few:
        assert rebuilt is None
        return
    count = len(rebuilt.channel)
    assert 1 < count <= page.PATCHES and len(set(rebuilt.channel.tolist())) == count
    assert rebuilt.raw.shape == rebuilt.raw_rebuilt.shape == (count, 200)
    assert rebuilt.spectrum.shape == rebuilt.spectrum_rebuilt.shape == (count, 100)
    assert all(np.isfinite(array).all() for array in rebuilt) and rebuilt.raw.std() > 0.1


class Made:
    """A function that keeps what it made last."""

    def __init__(self, function):
        self.function = function

    def __call__(self, *arguments, **options):
        self.rows = self.function(*arguments, **options)
        return self.rows


def test_a_run_whose_data_lie_elsewhere_is_reported(run, tmp_path):
    for stage in ("language", "tokenizer", "pretrain", "instruct"):
        (tmp_path / stage).symlink_to(run / stage)
    here, there = collect(run), collect(tmp_path)
    assert "prepare" not in there["seconds_by_part"]  # not 0 seconds: it is not known
    assert there["seconds"] == pytest.approx(here["seconds"] - here["seconds_by_part"]["prepare"])
    # Shards of other hands need not tell how long they took.
    for task in ("blink", "scp1"):
        shutil.copytree(run / "data" / task / "windows" / "test", tmp_path / "data" / task)
    (tmp_path / "data" / "README").write_text("a file")
    file = tmp_path / "data" / "scp1" / "manifest.json"
    manifest = json.loads(file.read_text())
    del manifest["seconds"]
    file.write_text(json.dumps(manifest))
    blink = json.loads((tmp_path / "data" / "blink" / "manifest.json").read_text())
    assert collect(tmp_path)["seconds_by_part"]["prepare"] == blink["seconds"]
