"""What is in a checkpoint or in shards.

  python -m neurolm_jax.inspect PATH

PATH is a workdir of ``train`` (step, parts, sizes, and a SHA-256 digest of the weights) or a folder of shards
(records, hours, recordings left out).
"""

import pathlib

from neurolm_jax.command import argument_parser, run
from neurolm_jax.errors import UserError


def main() -> None:
    parser = argument_parser("inspect", __doc__)
    parser.add_argument("path", type=pathlib.Path)
    path = parser.parse_args().path
    if not path.is_dir():
        raise UserError(f"{path}: no such folder")
    if (path / "manifest.json").is_file():
        inspect_shards(path)
    else:
        inspect_checkpoint(path)


def inspect_checkpoint(path: pathlib.Path) -> None:
    from neurolm_jax.training import checkpoint

    step, config = checkpoint.newest_step(path), checkpoint.read_config(path)
    arrays = checkpoint.read_arrays(path)
    parts: dict[str, list] = {}
    for name, array in arrays.items():
        parts.setdefault("/".join(name.split("/")[:3]), []).append(array)
    print(f"stage {config.stage}")
    print(f"step {step}")
    for name, found in parts.items():
        count, size = sum(a.size for a in found), sum(a.nbytes for a in found)
        print(f"  {name:<52} {count:>13,} {size / 2**20:>8,.1f} MB")
    print(f"parameters {sum(a.size for name, a in arrays.items() if name.startswith('params/')):,}")
    print(f"digest {checkpoint.digest(arrays)}")


def inspect_shards(path: pathlib.Path) -> None:
    from neurolm_jax.data.shards import open_shards

    manifest = open_shards(path).manifest
    print(f"kind {manifest['kind']}")
    print(f"records {manifest['records']:,} in {len(manifest['shards'])} shards")
    if "hours" in manifest:
        print(f"hours {manifest['hours']:.2f}")
    for recording in manifest.get("recordings", []):
        if recording["outcome"] == "skipped":
            print(f"left out {recording['name']}: {recording['reason']}")
    print(f"content {manifest['content_hash']}")


if __name__ == "__main__":
    run(main)
