"""Released weights go in and come out again, tensor for tensor; faults are all named and nothing is written."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden_figures import Golden, names, released_files
from safetensors.numpy import save_file
from small_data import config

from configs import instruct
from neurolm_jax import convert, train
from neurolm_jax.errors import UserError
from neurolm_jax.models.tokenizer import Tokenizer
from neurolm_jax.reporting import page
from neurolm_jax.stages.restore import restore_stage
from neurolm_jax.training import checkpoint
from neurolm_jax.training.mesh import make_mesh
from neurolm_jax.weights import files, gpt2

KMEANS_LEFT = ("VQ.quantize.embedding.cluster_size", "VQ.quantize.embedding.embed_avg")


@pytest.fixture(scope="module")
def golden():
    return Golden(names("lm")[0])


@pytest.fixture(scope="module")
def released(golden):
    """{"VQ": (tensors, arguments), "NeuroLM": ...}"""
    return released_files(golden)


@pytest.fixture
def saved(released, tmp_path):
    """Files of both, with the prefix of compiled models."""
    for name, (tensors, arguments) in released.items():
        files.write(tmp_path / f"{name}.safetensors", {f"_orig_mod.{k}": v for k, v in tensors.items()}, arguments)
    return tmp_path


def equal(got, want):
    assert got.keys() == want.keys()
    for name, array in want.items():
        np.testing.assert_array_equal(got[name], array, err_msg=name)


def test_a_tokenizer_comes_back_as_it_was(saved, released, golden):
    convert.convert_official(saved / "VQ.safetensors", saved / "vq")
    stage, weights = restore_stage(saved / "vq", make_mesh())
    assert stage.model_config == golden.tokenizer
    eeg = golden.eeg()
    ids = eeg["channel"], eeg["second"], eeg["segment"]
    encoding = Tokenizer(stage.model_config).apply({"params": weights.params}, eeg["patches"], *ids, method="encode")
    want = Tokenizer(golden.tokenizer).apply({"params": golden.tokenizer_params}, eeg["patches"], *ids, method="encode")
    # The same numbers exactly, and so the same function but for how operations on them are threaded.
    jax.tree.map(np.testing.assert_array_equal, weights.params, golden.tokenizer_params)
    np.testing.assert_allclose(encoding.z, want.z, rtol=1e-5, atol=1e-7)
    convert.export_checkpoint(saved / "vq", saved / "back.safetensors")
    tensors, arguments = files.read(saved / "back.safetensors")
    equal(tensors, released["VQ"][0])
    for key, fields in released["VQ"][1].items():
        assert arguments[key].items() >= fields.items()


def test_neurolm_comes_back_as_it_was(saved, released, golden):
    for stage_name, tokenizer in (("pretrain", saved / "VQ.safetensors"), ("instruct", None)):
        out = saved / stage_name
        convert.convert_official(saved / "NeuroLM.safetensors", out, tokenizer, stage_name)
        stage, weights = restore_stage(out, make_mesh())
        assert stage.config.stage == stage_name and stage.model_config == golden.neurolm
        assert bool(weights.extra["state"].codebook.initialised) is bool(tokenizer)
        features, codes = stage.encode(weights.extra, golden.eeg())
        if tokenizer:
            valid = golden["valid"].astype(bool)
            np.testing.assert_array_equal(np.asarray(codes)[valid], golden["codes"][valid])
        jax.tree.map(np.testing.assert_array_equal, weights.params, golden.neurolm_params)
        convert.export_checkpoint(out, saved / f"{stage_name}.safetensors")
        tensors, arguments = files.read(saved / f"{stage_name}.safetensors")
        equal(tensors, released["NeuroLM"][0])
        assert arguments["model_args"].items() >= released["NeuroLM"][1]["model_args"].items()


@pytest.mark.slow
def test_the_next_stage_starts_from_converted_weights(saved, runs, small_data, tmp_path):
    convert.convert_official(saved / "NeuroLM.safetensors", saved / "w", saved / "VQ.safetensors")
    stage, weights = restore_stage(saved / "w", make_mesh())
    c = config("instruct", small_data, tmp_path, steps=1)
    c.tokenizer, c.language, c.feature_norm = stage.config.tokenizer, stage.config.language, False
    c.initial.pretrain = str(saved / "w")
    train.train(c, tmp_path / "instruct")
    assert checkpoint.newest_step(tmp_path / "instruct") == 1
    with pytest.raises(UserError, match="holds converted weights; give another workdir"):
        train.train(c, saved / "w")


@pytest.mark.parametrize("kind", ["VQ", "NeuroLM"])
def test_faults_are_all_named_and_nothing_is_written(released, tmp_path, kind):
    tensors, arguments = released[kind]
    tensors = dict(tensors)
    bias, table = (
        [key for key in tensors if key.endswith("fc_norm.bias")][0],
        [k for k in tensors if "pos_embed" in k][0],
    )
    missing = [bias, [key for key in tensors if key.endswith("blocks.1.mlp.c_fc.weight")][0]]
    for name in missing:
        del tensors[name]
    tensors[table] = tensors[table][:, :-1].copy()
    tensors["VQ.new" if kind == "VQ" else "GPT2.new"] = np.zeros(3, np.float32)
    for given in (arguments, {}):
        file = tmp_path / f"{len(given)}.safetensors"
        files.write(file, tensors, given)
        with pytest.raises(UserError) as error:
            convert.convert_official(file, tmp_path / "out")
        for part in (*(f"{name} is missing" for name in missing), f"{table} has shape", "new has no place", file.name):
            assert part in str(error.value)
        if given:  # without them the number of heads is a guess, but nothing else is wrong either
            assert str(error.value).count(";") == 3
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".safetensors"] * 2


def test_wrong_files_are_refused(saved, released, runs, tmp_path):
    with pytest.raises(UserError, match="neither a VQ.pt"):
        save_file({"x": np.zeros(3, np.float32)}, saved / "x.safetensors")
        convert.convert_official(saved / "x.safetensors", saved / "out")
    with pytest.raises(UserError, match="--tokenizer goes with a NeuroLM checkpoint"):
        convert.convert_official(saved / "VQ.safetensors", saved / "out", saved / "VQ.safetensors")
    other = released["VQ"][0] | {"VQ.encoder.fc_norm.bias": released["VQ"][0]["VQ.encoder.fc_norm.bias"] + 1}
    files.write(saved / "other.safetensors", other, released["VQ"][1])
    with pytest.raises(UserError, match="its encoder is not the one in"):
        convert.convert_official(saved / "NeuroLM.safetensors", saved / "out", saved / "other.safetensors")
    with pytest.raises(
        UserError, match="no model with tokenizer.encoder.patch_norm=patch, tokenizer.encoder.causal=True"
    ):
        convert.export_checkpoint(runs / "tokenizer", saved / "out.safetensors")
    with pytest.raises(UserError, match="weights are read and written as .safetensors"):
        convert.export_checkpoint(runs / "language", saved / "out.npz")
    assert not (saved / "out").exists() and not (saved / "out.safetensors").exists()


@pytest.mark.slow
def test_our_own_official_tokenizer_is_exported_whole(runs, small_data, tmp_path):
    c = config("tokenizer", small_data, runs, steps=1)
    c.tokenizer.encoder.patch_norm, c.tokenizer.encoder.causal, c.tokenizer.dead_below = "row", False, 0.0
    train.train(c, tmp_path / "w")
    convert.export_checkpoint(tmp_path / "w", tmp_path / "VQ.safetensors")
    tensors, arguments = files.read(tmp_path / "VQ.safetensors")
    assert arguments["encoder_args"]["n_head"] == 2 and arguments["decoder_args"]["in_chans"] == 16
    _, weights = restore_stage(tmp_path / "w", make_mesh())
    codebook = weights.extra["state"].codebook
    np.testing.assert_array_equal(tensors[KMEANS_LEFT[0]], codebook.usage)
    np.testing.assert_array_equal(tensors[KMEANS_LEFT[1]], codebook.vectors)
    convert.convert_official(tmp_path / "VQ.safetensors", tmp_path / "again")
    jax.tree.map(
        np.testing.assert_array_equal, restore_stage(tmp_path / "again", make_mesh())[1].params, weights.params
    )


def test_gpt2_comes_back_as_it_was(runs, tmp_path):
    convert.export_checkpoint(runs / "language", tmp_path / "model.safetensors")
    tensors, _ = files.read(tmp_path / "model.safetensors")
    assert tensors["wte.weight"].shape == (50257, 32) and tensors["h.1.mlp.c_fc.weight"].shape == (32, 128)
    masks = {f"h.{i}.attn.bias": np.ones((1, 1, 8, 8), np.float32) for i in range(2)}
    save_file({f"transformer.{k}": v for k, v in (tensors | masks).items()}, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match="width 32 is none of GPT-2's, and no config.json tells the heads"):
        convert.convert_gpt2(tmp_path, tmp_path / "w")
    (tmp_path / "config.json").write_text('{"n_head": 2}')
    convert.convert_gpt2(tmp_path, tmp_path / "w")  # the folder
    assert not (tmp_path / "w" / convert.KMEANS_FILE).exists()
    c = checkpoint.read_config(tmp_path / "w")
    assert c.language.heads == 2
    assert (c.language.layers, c.language.width, c.language.positions, c.language.vocabulary) == (2, 32, 1024, 50304)
    convert.export_checkpoint(tmp_path / "w", tmp_path / "back.safetensors")
    equal(files.read(tmp_path / "back.safetensors")[0], tensors)
    convert.convert_gpt2(tmp_path / "back.safetensors", tmp_path / "again")  # the file says how many heads
    assert checkpoint.read_config(tmp_path / "again").language.heads == 2
    save_file(tensors | {"lm_head.weight": tensors["wte.weight"] + 1}, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match="lm_head.weight is not wte.weight"):
        convert.convert_gpt2(tmp_path, tmp_path / "w2")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("n_head: 2", "config.json: not valid JSON"),
        ("\xff", "config.json: not valid JSON"),
        ("[2]", "config.json: want an object with n_head"),
        ('{"n_head": 5}', r"config.json: 5 heads \(n_head\) do not divide the width 32"),
        ('{"n_head": 0}', "config.json: 0 heads"),
        ('{"n_head": "2"}', "config.json: '2' heads"),
    ],
)
def test_a_config_of_gpt2_that_is_none_is_refused(tmp_path, text, told):
    save_file({"wpe.weight": np.zeros((8, 32), np.float32)}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(UserError, match=told):
        convert.convert_gpt2(tmp_path, tmp_path / "w")
    assert not (tmp_path / "w").exists()


@pytest.mark.parametrize(("kind", "part"), [("VQ", "encoder_args"), ("NeuroLM", "model_args")])
def test_heads_that_do_not_divide_the_width_are_refused(released, tmp_path, kind, part):
    tensors, arguments = released[kind]
    files.write(tmp_path / "x.safetensors", tensors, arguments | {part: arguments[part] | {"n_head": 7}})
    with pytest.raises(UserError, match=r"x.safetensors: .*7 heads \(n_head\) do not divide the width"):
        convert.convert_official(tmp_path / "x.safetensors", tmp_path / "w")
    assert not (tmp_path / "w").exists()


def test_converted_weights_are_asked_in_rows_of_the_released_size(saved):
    convert.convert_official(saved / "NeuroLM.safetensors", saved / "w", stage="instruct")
    found, usual = checkpoint.read_config(saved / "w"), instruct.get_config("official_b")
    for name in ("eeg_length", "row_length", "answer_length"):
        assert found[name] == usual[name]
    assert (found.data.prompts, tuple(found.data.splits)) == (usual.data.prompts, tuple(usual.data.splits))
    assert set(usual.data.tasks) <= set(found.data.tasks)


def test_no_patches_of_converted_weights_are_shown(saved):
    """They come without data."""
    convert.convert_official(saved / "VQ.safetensors", saved / "tokenizer")
    assert page.rebuild(saved / "tokenizer") is None


def test_the_command(saved):
    def command(*arguments):
        done = subprocess.run(
            [sys.executable, "-m", "neurolm_jax.convert", *map(str, arguments)], capture_output=True, text=True
        )
        return done.returncode, done.stdout, done.stderr

    code, out, _ = command("official", saved / "VQ.safetensors", "--out", saved / "w")
    assert code == 0 and "tokenizer" in out
    code, _, error = command("official", saved / "VQ.safetensors", "--out", saved / "w")
    assert code == 2 and error.count("\n") == 1 and "nothing is overwritten" in error
    code, _, error = command("gpt2", saved / "none", "--out", saved / "w2")
    assert code == 2 and error.count("\n") == 1 and "no such file or folder" in error


def test_sizes_of_gpt2():
    """Layers, heads and width of the four published sizes, from shapes alone."""
    for layers, heads, width in ((12, 12, 768), (24, 16, 1024), (36, 20, 1280), (48, 25, 1600)):
        tensors = {f"h.{i}.ln_1.weight": np.zeros(width) for i in range(layers)}
        tensors |= {"wpe.weight": np.zeros((1024, width)), "ln_f.weight": np.zeros(width)}
        assert gpt2.sizes(tensors) == {"layers": layers, "heads": heads, "width": width, "positions": 1024}


def test_the_added_rows_of_the_embedding_are_the_mean_of_the_others():
    table = np.arange(50257 * 2, dtype=np.float32).reshape(50257, 2)
    wide = gpt2.widened({"wte.weight": table}, 50304)["wte.weight"]
    np.testing.assert_array_equal(wide[:50257], table)
    np.testing.assert_allclose(wide[50257:], jnp.tile(table.mean(0), (47, 1)))
