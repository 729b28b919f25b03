"""Any field of any config set to anything: the stage trains, or refuses before it makes anything, naming the field."""

import json
import math
import os

import jax
import numpy as np
import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st
from small_data import config

from neurolm_jax import train
from neurolm_jax.configuration import flat
from neurolm_jax.data.streams import Steps
from neurolm_jax.errors import UserError
from neurolm_jax.training import metrics
from neurolm_jax.training.mesh import put_batch
from neurolm_jax.training.state import abstract_state, make_train_step

MORE = int(os.environ.get("FUZZ_EXAMPLES", 0))  # to search on
EXAMPLES = MORE or 25
SETTINGS = settings(deadline=None, suppress_health_check=list(HealthCheck), database=None)
STAGES = ("language", "tokenizer", "pretrain", "instruct")
SLOW = pytest.param("tokenizer", marks=pytest.mark.slow)
WHOLE = st.one_of(st.integers(-3, 70), st.sampled_from([128, 257, 50257, 50304, 2**31, 2**40, -(2**31), -(2**40)]))
REAL = st.one_of(
    st.floats(-2, 2, allow_subnormal=False),
    st.sampled_from([0.0, -0.0, 1.0, math.nan, math.inf, -math.inf, 1e30, -1e30]),
)
WORDS = st.sampled_from(
    ["", "x", "none", "all", "products", "row", "patch", "float32", "bfloat16", "float16", "varied", "/", "\0"]
)
NAMES = st.lists(st.sampled_from(["blink", "scp1", "x", "", "blink/recordings/train", "..", "/"]), max_size=3).map(
    tuple
)


def value_for(old):
    if isinstance(old, bool):
        return st.booleans()
    kinds = {int: WHOLE, float: REAL, str: WORDS, tuple: NAMES}
    return kinds[type(old)]


@st.composite
def overrides(draw, base):
    """One to three fields of a stage's config, other than where it finds things."""
    left_alone = {"stage", "wandb", "compilation_cache", "data.root", "steps", "initial.gpt2"}
    names = dict(field for field in flat(base) if field[0] not in left_alone)
    chosen = draw(st.lists(st.sampled_from(sorted(names)), min_size=1, max_size=3, unique=True))
    return {name: draw(value_for(names[name])) for name in chosen}


def words_of(changed):
    """What a message may call a field: its name, or a part of it that tells enough."""
    return {word for name in changed for word in (name, name.split(".")[-1], name.split(".")[0])}


def changed_config(stage, data, runs, changed, **common):
    c = config(stage, data, runs, **common)
    try:
        c.update_from_flattened_dict(changed)
    except (TypeError, ValueError):  # as the command line refuses it
        assume(False)
    return c


def refusal(call, changed):
    """None, or the message with which it is refused, which must name a field."""
    try:
        call()
    except UserError as error:
        said = str(error)
        assert "\n" not in said
        assert any(word in said for word in words_of(changed)), (said, changed)
        return said
    return None


# What changes only the program's size would be compiled for each: tracing finds what is wrong with it as well.
@pytest.mark.parametrize("stage", ["language", SLOW, "pretrain", "instruct"])
def test_any_override_is_traced_or_refused(stage, small_data, runs, tmp_path):
    seen = {"traced": 0, "refused": 0}

    @settings(SETTINGS, max_examples=EXAMPLES, derandomize=not MORE)
    @given(changed=overrides(config(stage, small_data, runs)))
    def fuzz(changed):
        c = changed_config(stage, small_data, runs, changed)

        def trace():
            built, mesh, sources, held_out = train.plan(c)
            assume(all(size <= 140 for _, size in sources.values()))
            batch, _ = put_batch(mesh, Steps(sources, 1)[0]), Steps(held_out, 1)[0]
            make_train_step(built, mesh).eval_shape(abstract_state(built, mesh), batch, jax.random.key(0))

        seen["refused" if refusal(trace, changed) else "traced"] += 1

    fuzz()
    assert min(seen.values()) > 0, seen
    if report := os.environ.get("FUZZ_REPORT"):
        with open(report, "a") as file:
            file.write(json.dumps({"stage": stage} | seen) + "\n")


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
def test_any_override_trains_a_step_or_leaves_nothing(stage, small_data, runs, tmp_path):
    seen = {"trained": 0, "refused": 0}

    @settings(SETTINGS, max_examples=MORE or 12, derandomize=not MORE)
    @example(changed={"learning_rate": 0.5})  # most of what is drawn is refused, which must not be all that happens
    @given(changed=overrides(config(stage, small_data, runs)))
    def fuzz(changed):
        number = sum(seen.values())
        c = changed_config(stage, small_data, runs, changed, steps=1)
        assume(all(size <= 16 for size in (c.batch_size, c.text_batch_size)) and c.data.workers <= 2)
        assume(not any(0 < seconds < 600 for seconds in c.patience.values()))  # which ends the process that compiles
        workdir = tmp_path / str(number)
        if refusal(lambda: train.train(c, workdir), changed):
            seen["refused"] += 1
            assert not workdir.exists()
        else:
            seen["trained"] += 1
            assert metrics.read(workdir)[-1]["step"] == 1
            assert all(np.isfinite(v) for v in metrics.read(workdir)[-1].values() if not isinstance(v, str))

    fuzz()
    assert seen["trained"] > 0, seen
