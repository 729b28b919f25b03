"""Low-rank adaptation: what is trained, what stays, and what it comes to."""

import flax.linen as nn
import jax
import numpy as np
import pytest
from small_data import config

from neurolm_jax import stages, train
from neurolm_jax.convert import export_checkpoint
from neurolm_jax.data.streams import Steps
from neurolm_jax.errors import UserError
from neurolm_jax.models.config import SUMMARY_READS
from neurolm_jax.models.lora import fold, join, split
from neurolm_jax.stages.restore import restore_stage
from neurolm_jax.training import saving
from neurolm_jax.training.mesh import make_mesh


@pytest.fixture(scope="module")
def tuned(small_data, runs, tmp_path_factory):
    """A workdir whose last stage trained terms of rank 2."""
    workdir = tmp_path_factory.mktemp("lora") / "instruct"
    c = config("instruct", small_data, runs)
    c.language.lora_rank, c.summary.reads, c.summary.width = 2, SUMMARY_READS, 8
    train.train(c, workdir)
    return workdir


def test_few_parameters_are_trained_and_the_others_stay(tuned, runs):
    stage, weights = restore_stage(tuned, make_mesh())
    _, before = restore_stage(runs / "pretrain", make_mesh())
    jax.tree.map(np.testing.assert_array_equal, weights.extra["frozen"], before.params)
    summary = {
        "of_features",
        "of_spectrum",
        "of_rhythms",
        "of_connectivity",
        "of_waveform",
    }  # new in this stage, so it is trained as it is
    assert set(weights.params["summary"]) == summary
    terms = {name: part for name, part in weights.params.items() if name != "summary"}
    names = {str(path[-1].key) for path, _ in jax.tree_util.tree_leaves_with_path(terms)}
    assert names == {"lora_down", "lora_up"}
    assert all(np.any(leaf) for leaf in jax.tree.leaves(weights.params))  # lora_up began as zeros


def test_less_than_two_percent_at_size_b():
    from configs import instruct

    c = instruct.get_config("b")
    c.language.lora_rank = 16
    shapes = jax.eval_shape(stages.build(c).create, jax.random.key(0))
    trained, frozen, encoder = (
        sum(leaf.size for leaf in jax.tree.leaves(part))
        for part in (shapes.params, shapes.extra["frozen"], shapes.extra["tokenizer"])
    )
    assert 0 < trained < 0.02 * (frozen + trained + encoder)
    assert trained == 12 * 16 * (768 + 3 * 768 + 2 * 768 + 2 * 5 * 768)


@pytest.mark.slow
def test_a_new_term_changes_nothing_and_a_folded_one_neither(tuned, runs, small_data):
    stage, weights = restore_stage(tuned, make_mesh())
    plain_stage, before = restore_stage(runs / "pretrain", make_mesh())
    c = config("instruct", small_data, runs)
    batch = Steps(stage.sources(True), 1)[0]

    def losses(stage, weights):
        terms = jax.jit(lambda w, b: stage.terms(w, b, jax.random.key(0), 1.0, False).losses)(weights, batch)
        return [float(term.value) for term in terms.values()]

    c.language.lora_rank = 0
    zero = weights._replace(params=jax.tree.map(np.zeros_like, weights.params))
    without_summary = stages.build(c)
    c.summary.reads, c.summary.width = SUMMARY_READS, 8
    plain = stages.build(c)
    np.testing.assert_allclose(losses(stage, zero), losses(without_summary, before), rtol=1e-6)
    np.testing.assert_allclose(losses(stage, weights), losses(plain, stage.plain(weights)), rtol=1e-5)
    assert not np.allclose(losses(stage, weights), losses(without_summary, before), rtol=1e-4)


def test_split_join_fold():
    rng = np.random.default_rng(0)
    down, up, kernel = rng.standard_normal((3, 5, 2)), rng.standard_normal((3, 2, 4)), rng.standard_normal((3, 5, 4))
    tree = {"a": {"kernel": kernel, "lora_down": down, "lora_up": up}, "b": {"kernel": kernel[0]}}
    terms, rest = split(tree)
    assert set(terms) == {"a"} and set(terms["a"]) == {"lora_down", "lora_up"} and set(rest["a"]) == {"kernel"}
    joined = join(terms, rest)
    assert jax.tree.structure(joined) == jax.tree.structure(tree)
    x = rng.standard_normal((7, 5))
    for layer in range(3):
        want = x @ kernel[layer] + 0.5 * (x @ down[layer]) @ up[layer]
        np.testing.assert_allclose(x @ fold(tree, 0.5)["a"]["kernel"][layer], want, rtol=1e-5)


def test_export_folds_the_terms(small_data, runs, tmp_path):
    from safetensors.numpy import load_file

    c = config("instruct", small_data, runs)
    c.tokenizer.encoder.update(patch_norm="row", causal=False)
    c.language.lora_rank, c.feature_norm = 2, False
    stage = stages.build(c)
    weights = nn.unbox(jax.jit(stage.create)(jax.random.key(0)))
    weights = weights._replace(params=jax.tree.map(lambda x: x + 0.1, weights.params))
    saving.save_weights(tmp_path / "w", weights, c)
    export_checkpoint(tmp_path / "w", tmp_path / "x.safetensors")
    found = load_file(tmp_path / "x.safetensors")
    assert not any("lora" in name for name in found)
    [name] = [name for name in found if name.endswith("h.1.mlp.c_fc.weight")]
    terms, frozen = (
        jax.tree.map(np.asarray, part["language"]["stack"]["blocks"]["mlp_input"])
        for part in (weights.params, weights.extra["frozen"])
    )
    want = frozen["kernel"][1] + 16 / 2 * terms["lora_down"][1] @ terms["lora_up"][1]
    np.testing.assert_allclose(found[name], want.T, rtol=1e-5)


def test_a_stage_may_begin_with_what_low_rank_terms_have_learnt(tuned, small_data, runs, tmp_path):
    c = config("instruct", small_data, runs, steps=0)
    c.initial.pretrain = str(tuned)
    with pytest.raises(UserError, match=r"config.summary.reads: \(\), but .* summary.reads \('features', "):
        train.train(c, tmp_path / "without")
    c.summary.reads, c.summary.width = SUMMARY_READS, 8
    train.train(c, tmp_path / "next")
    stage, weights = restore_stage(tuned, make_mesh())
    _, after = restore_stage(tmp_path / "next", make_mesh())
    jax.tree.map(np.testing.assert_array_equal, after.params, stage.plain(weights).params)
    c.data.prompts = "varid"
    with pytest.raises(UserError, match="config.data.prompts: want one of official, shuffled, varied, not 'varid'"):
        train.train(c, tmp_path / "other")
