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

from neurolm_jax.command import argument_parser, run
from neurolm_jax.data.trained_on import NOTHING
from neurolm_jax.errors import UserError
from neurolm_jax.outputs import appearing_folder

KMEANS_FILE = "kmeans.safetensors"  # what a released tokenizer keeps of its first codebook; kept for export alone


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
    from neurolm_jax.weights import released

    _write_workdir(out, released.read_official(path, _zeros, tokenizer, stage), _official(path, stage))


def convert_gpt2(path: pathlib.Path, out: pathlib.Path) -> None:
    """GPT-2 as the workdir of a language stage."""
    from neurolm_jax.weights import released

    _write_workdir(out, released.read_gpt2(path, _zeros), NOTHING | {"stages": [{"stage": path.name, "sets": []}]})


def export_checkpoint(workdir: pathlib.Path, out: pathlib.Path) -> None:
    """A stage's newest weights under the names of VQ.pt, NeuroLM-*.pt or GPT-2."""
    from neurolm_jax.stages.restore import restore_stage
    from neurolm_jax.training.mesh import make_mesh
    from neurolm_jax.weights import files, released

    files.check_suffix(out)
    stage, weights = restore_stage(workdir, make_mesh())
    kmeans = workdir / KMEANS_FILE
    kept = files.read(kmeans)[0] if kmeans.is_file() else None
    released.write(out, released.Released(stage.config, stage.plain(weights), kept))
    print(f"{out}: {stage.config.stage}")


def _zeros(config):
    """The weights of a config's stage, all zero: views of one zero, since what is read takes their place before
    anything of a model's size is made."""
    import flax.linen as nn
    import jax
    import numpy as np

    from neurolm_jax import stages

    shapes = nn.unbox(jax.eval_shape(stages.build(config).create, jax.random.key(0)))
    return jax.tree.map(lambda x: np.broadcast_to(np.zeros((), x.dtype), x.shape), shapes)


def _official(path, stage):
    """What is known of what a released checkpoint was trained on: no list of recordings is published."""
    cohorts = {"tuh": f"{path.name} was pre-trained on TUEG, which is known to hold the people of TUAB, TUEV and TUSL"}
    if stage == "instruct":
        why = "{} learnt the official training part of {}, which may hold what another --split tests on"
        cohorts |= {name: why.format(path.name, name) for name in ("seed", "hmc", "workload")}
    return NOTHING | {"stages": [{"stage": path.name, "sets": []}], "cohorts": cohorts}


def _write_workdir(out, found, trained_on):
    from neurolm_jax.training import saving
    from neurolm_jax.weights import files

    with appearing_folder(out) as folder:
        saving.save_weights(folder, found.weights, found.config, trained_on)
        if found.kmeans:
            files.write(folder / KMEANS_FILE, found.kmeans, {})
    print(f"{out}: {found.config.stage}")


if __name__ == "__main__":
    run(main)
