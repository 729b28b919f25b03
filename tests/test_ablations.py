"""Ablations: differences from the baseline of the same seed, where losses can be compared."""

import pytest
from small_sweeps import SIZES

from neurolm_jax.errors import UserError
from neurolm_jax.studies import ablations
from neurolm_jax.studies.grids import PRETRAIN_LANGUAGE, ablation, chain, everywhere
from neurolm_jax.studies.measures import Row, rows_of
from neurolm_jax.studies.sweep import load, settled


def row(name, seed, codes="t0", stage="pretrain", **metrics):
    known = {"budget": "", "share": 1.0, "parameters": 1, "tokens_seen": 1.0, "tokens_distinct": 1, "steps": 1}
    known |= {"operations": 1.0, "seconds": 1.0, "finished": True, "loss": None, "folder": f"{name}{seed}"}
    return Row(name=name, seed=seed, stage=stage, codes=codes, metrics=metrics, **known)


def test_an_ablations_differences_are_of_one_seed():
    base, other = {0: 1.0, 1: 2.0, 2: 4.0}, {0: 1.5, 1: 2.25, 2: 4.125, 7: 99.0}
    rows = [row("baseline", s, validation_eeg_loss=x) for s, x in base.items()]
    rows = [row("new", s, validation_eeg_loss=x) for s, x in other.items()] + rows
    found = ablations.compare(rows, "validation_eeg_loss", "baseline")
    assert list(found) == ["baseline", "new"] and not found["baseline"].differences
    assert found["new"].differences == [0.5, 0.25, 0.125] and found["new"].agrees
    [said], [table], told = ablations.report("pretrain", rows, "baseline")
    assert "new is worse on every seed, by 0.292 on average (that 3 seeds agree comes by chance in 25.0%)" in said
    assert table.rows[0][2] == "2.333" and told["validation_eeg_loss"]["baseline"]["values"] == [1.0, 2.0, 4.0]
    rows.append(row("mixed", 0, validation_eeg_loss=0.5))
    rows += [row("mixed", s, validation_eeg_loss=base[s] + 1) for s in (1, 2)]
    rows += [row("few", s, validation_eeg_loss=base[s] - 1) for s in (0, 1)]
    rows += [row("same", s, validation_eeg_loss=base[s]) for s in base]
    said = " ".join(ablations.report("pretrain", rows, "baseline")[0])
    assert "mixed differs by +0.5, which its seeds do not agree on" in said
    assert "few differs by -1; 2 seeds are too few" in said and "same changes nothing" in said


def test_nothing_is_concluded_from_losses_over_other_codes():
    """Pre-training's are over the tokenizer's codes: their difference says nothing, that of answers and text does."""
    measured = {"validation_eeg_loss": 1.0, "validation_loss": 2.0, "validation_text_loss": 3.0}
    better = {name: value / 2 for name, value in measured.items()}
    rows = [row("baseline", seed, f"t{seed}", **measured) for seed in range(3)]
    rows += [row("other", seed, f"other{seed}", **better) for seed in range(3)]
    rows += [row("same", seed, f"t{seed}", **better) for seed in range(3)]
    said, [table], told = ablations.report("pretrain", rows, "baseline")
    assert [line for line in said if "eeg loss" in line] == [
        "pretrain, eeg loss: same is better on every seed, by 0.5 on average"
        " (that 3 seeds agree comes by chance in 25.0%)",
        "pretrain, eeg loss: over other codes than the baseline's, nothing to compare: other",
    ]
    assert sum("other is better" in line for line in said) == 1  # text
    assert told["validation_eeg_loss"]["other"]["differences"] == []
    assert ("eeg loss", "other", "0.5", "0.5 to 0.5", "", "") in table.rows
    rows = [row("baseline", 0, "256", "tokenizer", validation_codes_used=0.5, validation_raw_loss=1.0)]
    rows += [row("small", 0, "64", "tokenizer", validation_codes_used=1.0, validation_raw_loss=2.0)]
    said = ablations.report("tokenizer", rows, "baseline")[0]
    assert "codes used: over other codes" in said[0] and "raw loss: small differs by +1" in said[1]


def test_what_a_loss_is_over_is_read_of_the_runs(study, small_data, tmp_path):
    """Codes of one number are not the same ones: another tokenizer's differ."""
    variants = {"other": {"tokenizer": {"raw_loss_weight": 0.0}}, "scratch": {PRETRAIN_LANGUAGE: {"steps": 0}}}
    sweep = settled(ablation("x", "quickstart", variants, ("pretrain",), (0,)), {"data.root": str(small_data)})
    rows = {row.name: row for row in rows_of(sweep, tmp_path)}
    assert rows["baseline"].codes == rows["scratch"].codes != rows["other"].codes
    assert {row.codes for row in rows_of(study, tmp_path)} == {str(load(SIZES["s"]).tokenizer.codes)}


def test_a_change_of_the_tokenizer_goes_into_every_later_config():
    runs = chain("quickstart", everywhere({"tokenizer.encoder.causal": False}), 2)
    assert [load(runs[stage]).tokenizer.encoder.causal for stage in ("tokenizer", "pretrain", "instruct")] == [
        False
    ] * 3
    assert [load(runs[stage]).seed for stage in runs] == [0, 2, 2, 2]
    b = chain("b,weights/gpt2", {}, 0)
    assert load(b["language"]).initial.gpt2 == "weights/gpt2" and load(b["language"]).steps == 0
    for wrong in ("huge", "b", ""):
        with pytest.raises(UserError, match="must be quickstart, or b,FOLDER"):
            ablation("x", wrong, {})
