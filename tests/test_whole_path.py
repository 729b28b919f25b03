"""From prepared shards to the page: evaluate and report over tiny stages."""

import json
import pathlib
import re

import pytest

from neurolm_jax import report
from neurolm_jax.inference.evaluation import Options, evaluate
from neurolm_jax.reporting.results import collect
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
    assert len(logged) > 12 and logged <= told, logged - told


def test_one_task_on_validation(run):
    found = evaluate(run / "instruct", None, ["scp1"], Options("validation", quick=True))
    assert list(found["tasks"]) == ["scp1"] and found["split"] == "validation"


def test_page_and_results(run):
    results = collect(run)
    assert set(results["stages"]) == {"language", "tokenizer", "pretrain", "instruct"}
    for stage, final in results["stages"].items():
        assert final["loss"] == metrics.read(run / stage)[-1]["loss"]
    assert results["seconds"] > 0 and results["seed"] == 0
    report.write_page(run, results)
    page = (run / "report.html").read_text()
    for title in ("Results on held-out EEG", "Codebook use", "Patches and their reconstruction", "Losses: instruct"):
        assert title in page
    assert page.count("<img") + page.count("<svg") >= 8
    assert not list(run.glob(".*"))
