"""Weights published elsewhere into our checkpoints, and back.

  python -m neurolm_jax.convert official VQ.pt --out W
  python -m neurolm_jax.convert official NeuroLM-B.pt --out W [--tokenizer VQ.pt] [--stage pretrain|instruct]
  python -m neurolm_jax.convert gpt2 FILE_OR_FOLDER --out W
  python -m neurolm_jax.convert export W --out FILE

Files are .safetensors, or PyTorch's .pt, .pth and .bin, which need PyTorch and are read as plain data.
W is a workdir like those of ``train``, at step 0: another stage starts from it (``--config.initial.tokenizer=W``), and
an instruct stage can be evaluated. A NeuroLM checkpoint has no codebook; ``--tokenizer`` adds that of its VQ.pt.
"""

import pathlib
from typing import Any

from neurolm_jax.command import argument_parser, run
from neurolm_jax.eeg.tasks import NAMES
from neurolm_jax.errors import UserError
from neurolm_jax.outputs import appearing_folder

KMEANS_FILE = "kmeans.safetensors"  # what a released tokenizer keeps of its first codebook; kept for export alone
_ROWS = {"instruct": {"eeg_length": 768, "row_length": 1024, "answer_length": 64}}


def main() -> None:
    parser = argument_parser("convert", __doc__)
    kinds = parser.add_subparsers(dest="kind", required=True)
    official = kinds.add_parser("official", help="a released VQ.pt or NeuroLM-{B,L,XL}.pt")
    official.add_argument("--tokenizer", type=pathlib.Path, help="the VQ.pt that a NeuroLM checkpoint was trained with")
    official.add_argument(
        "--stage", choices=("pretrain", "instruct"), default="pretrain", help="of a NeuroLM checkpoint"
    )
    gpt2 = kinds.add_parser("gpt2", help="GPT-2 of any size, as Hugging Face publishes it")
    export = kinds.add_parser("export", help="one of our checkpoints into such a file")
    for kind in (official, gpt2, export):
        kind.add_argument("path", type=pathlib.Path)
        kind.add_argument("--out", type=pathlib.Path, required=True)
    arguments = parser.parse_args()
    if not arguments.path.exists():
        raise UserError(f"{arguments.path}: no such file or folder")
    if arguments.out.exists():
        raise UserError(f"{arguments.out}: exists already; nothing is overwritten")
    if arguments.kind == "official":
        convert_official(arguments.path, arguments.out, arguments.tokenizer, arguments.stage)
    elif arguments.kind == "gpt2":
        convert_gpt2(arguments.path, arguments.out)
    else:
        export_checkpoint(arguments.path, arguments.out)


def convert_official(
    path: pathlib.Path, out: pathlib.Path, tokenizer: pathlib.Path | None = None, stage: str = "pretrain"
) -> None:
    """A released checkpoint, of either kind, as a workdir."""
    from neurolm_jax.weights import files

    tensors, arguments = files.read(path)
    kinds = [any(name.startswith(prefix) for name in tensors) for prefix in ("VQ.", "GPT2.")]
    if kinds == [True, False]:
        if tokenizer:
            raise UserError(f"{path}: a tokenizer; --tokenizer goes with a NeuroLM checkpoint")
        _write_workdir(out, *_read_vq(path, tensors, arguments))
    elif kinds == [False, True]:
        _write_workdir(out, *_read_neurolm(path, tensors, arguments, tokenizer, stage))
    else:
        raise UserError(f"{path}: neither a VQ.pt (tensors VQ.*) nor a NeuroLM checkpoint (tensors GPT2.*)")


def _read_vq(path, tensors, arguments):
    import numpy as np

    from neurolm_jax.models.quantizer import Codebook
    from neurolm_jax.weights import official, sections
    from neurolm_jax.weights.mapping import read_tree

    config, zeros = _empty("tokenizer", sections.tokenizer_sections(tensors, arguments))
    state = zeros.extra["state"]
    codebook = state.codebook._asdict()
    like = {"params": zeros.params, "codebook": codebook, "text": zeros.extra["text"], "kmeans": codebook}
    found = read_tree(official.vq_entries(), tensors, like, str(path))
    # Without statistics of its own the features stay as they are where they are standardised.
    variance = np.ones_like(state.feature_variance)
    state = state._replace(codebook=Codebook(**found["codebook"]), feature_variance=variance)
    weights = zeros._replace(params=found["params"], extra={"state": state, "text": found["text"]})
    return config, weights, found["kmeans"]


def _read_neurolm(path, tensors, arguments, tokenizer, stage):
    import jax
    import numpy as np

    from neurolm_jax.weights import files, official, sections
    from neurolm_jax.weights.mapping import read_tree

    fields = sections.neurolm_sections(tensors, arguments)
    vq = None
    if tokenizer:
        vq_config, vq, _ = _read_vq(tokenizer, *files.read(tokenizer))
        fields["tokenizer"] = vq_config.tokenizer.to_dict()
    config, zeros = _empty(stage, fields)
    projected = config.language.width != config.tokenizer.encoder.width
    like = {"params": zeros.params, "encoder": zeros.extra["tokenizer"]["encoder"]}
    found = read_tree(official.checkpoint_entries(projected), tensors, like, str(path))
    tensors.clear()  # a model's size of memory, which writing wants for itself
    extra: dict[str, Any] = {**zeros.extra, "tokenizer": {**zeros.extra["tokenizer"], "encoder": found["encoder"]}}
    if vq:
        if not all(jax.tree.leaves(jax.tree.map(np.array_equal, found["encoder"], vq.params["encoder"]))):
            raise UserError(f"{tokenizer}: its encoder is not the one in {path}")
        extra["tokenizer"]["code_projection"] = vq.params["code_projection"]
        extra["state"] = vq.extra["state"]
    return config, zeros._replace(params=found["params"], extra=extra)


def convert_gpt2(path: pathlib.Path, out: pathlib.Path) -> None:
    """GPT-2 as the workdir of a language stage."""
    from neurolm_jax.weights import gpt2, sections

    tensors, heads = gpt2.read(path)
    fields = gpt2.sizes(tensors) | sections.PRECISION
    fields |= {"vocabulary": 50304, "approximate_gelu": True, "dropout": 0.0}
    if heads is None and fields["width"] % gpt2.HEAD_WIDTH:
        raise UserError(f"{path}: width {fields['width']} is none of GPT-2's, and no config.json tells the heads")
    config, zeros = _empty("language", {"language": fields | ({"heads": heads} if heads else {})})
    params = gpt2.place(tensors, zeros.params, str(path))
    tensors.clear()  # a model's size of memory, which writing wants for itself
    _write_workdir(out, config, zeros._replace(params=params))


def export_checkpoint(workdir: pathlib.Path, out: pathlib.Path) -> None:
    """A stage's newest weights under the names of VQ.pt, NeuroLM-*.pt or GPT-2."""
    from neurolm_jax.stages.restore import restore_stage
    from neurolm_jax.training.mesh import make_mesh
    from neurolm_jax.weights import files, gpt2, official, sections
    from neurolm_jax.weights.mapping import write_tensors

    files.check_suffix(out)
    stage, weights = restore_stage(workdir, make_mesh())
    if stage.config.stage == "language":
        heads = {"n_head": stage.model_config.heads} if out.suffix in files.SAFETENSORS else {}
        files.write(out, gpt2.published(weights.params), heads)
    elif stage.config.stage == "tokenizer":
        arguments = sections.arguments(stage.config)
        codebook = weights.extra["state"].codebook._asdict()
        kmeans = files.read(workdir / KMEANS_FILE)[0] if (workdir / KMEANS_FILE).is_file() else codebook
        tree = {"params": weights.params, "codebook": codebook, "text": weights.extra["text"], "kmeans": kmeans}
        files.write(out, write_tensors(official.vq_entries(), tree), arguments)
    else:
        arguments = sections.arguments(stage.config)
        if stage.config.stage == "instruct":
            weights = stage.plain(weights)
        tree = {"params": weights.params, "encoder": weights.extra["tokenizer"]["encoder"]}
        files.write(out, write_tensors(official.checkpoint_entries("projection" in weights.params), tree), arguments)
    print(f"{out}: {stage.config.stage}")


def _empty(name: str, fields: dict):
    """A stage's config with the given sections, and weights of zeros in its shapes."""
    import flax.linen as nn
    import jax
    import numpy as np

    from neurolm_jax import stages
    from neurolm_jax.configuration import base

    config = base(name)
    config.update(fields | _ROWS.get(name, {}))
    if name == "instruct":
        config.data.update({"tasks": NAMES, "splits": ("train",), "prompts": "official"})
    shapes = nn.unbox(jax.eval_shape(stages.build(config).create, jax.random.key(0)))
    # Views of one zero: what is read takes their place before anything of a model's size is made.
    return config, jax.tree.map(lambda x: np.broadcast_to(np.zeros((), x.dtype), x.shape), shapes)


def _write_workdir(out, config, weights, kmeans=None):
    from neurolm_jax.training import checkpoint
    from neurolm_jax.weights import files

    with appearing_folder(out) as folder:
        checkpoint.save_weights(folder, weights, config)
        if kmeans:
            files.write(folder / KMEANS_FILE, kmeans, {})
    print(f"{out}: {config.stage}")


if __name__ == "__main__":
    run(main)
