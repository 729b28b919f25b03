"""What is in a checkpoint or in shards.

  python -m neurolm_jax.inspect PATH [--verify]

PATH is a workdir of ``train`` (step, parts, sizes, and a SHA-256 digest of the weights) or a folder of shards
(records, hours, electrodes, rates, recordings left out); --verify reads every record and compares it with the manifest.
"""

import pathlib

from neurolm_jax.command import argument_parser, run
from neurolm_jax.errors import UserError
from neurolm_jax.escaping import escape


def main() -> None:
    parser = argument_parser("inspect", __doc__)
    parser.add_argument("path", type=pathlib.Path)
    parser.add_argument("--verify", action="store_true", help="read every record of the shards")
    arguments = parser.parse_args()
    path = arguments.path
    if not path.is_dir():
        raise UserError(f"{path}: no such folder")
    if (path / "manifest.json").is_file():
        inspect_shards(path, arguments.verify)
    elif arguments.verify:
        raise UserError(f"{path}: --verify is for folders of shards, and this has no manifest.json")
    else:
        inspect_checkpoint(path)


def inspect_checkpoint(path: pathlib.Path) -> None:
    """Print stage, step, the parts of the newest checkpoint with their numbers and MB (10^6 bytes), and a digest.

    Raises:
      UserError: the workdir has no checkpoint that can be read.
    """
    from neurolm_jax.training import checkpoint

    step = checkpoint.newest_step(path)
    config, arrays = checkpoint.read_config(path, step), checkpoint.read_arrays(path, step)
    parts: dict[str, list] = {}
    for name, array in arrays.items():
        parts.setdefault("/".join(name.split("/")[:3]), []).append(array)
    print(f"stage {config.stage}")
    print(f"step {step}")
    for name, found in parts.items():
        count, size = sum(a.size for a in found), sum(a.nbytes for a in found)
        print(f"  {name:<52} {count:>13,} {size / 1e6:>8,.1f} MB")
    print(f"parameters {sum(a.size for name, a in arrays.items() if name.startswith('params/')):,}")
    print(f"digest {checkpoint.digest(arrays)}")


def inspect_shards(path: pathlib.Path, verify: bool = False) -> None:
    """Print what the manifest of a folder of shards says of them.

    Args:
      verify: read every record too, and compare it with the manifest.

    Raises:
      UserError: naming the manifest, shard or record that is missing, damaged or another than the manifest says.
    """
    import collections

    from neurolm_jax.data.shards import open_shards
    from neurolm_jax.eeg.electrodes import VOCABULARY, recorded_electrodes
    from neurolm_jax.reporting.console import print_recordings

    shards = open_shards(path)
    manifest = shards.manifest
    print(escape(f"kind {manifest['kind']}, source {manifest.get('source', 'text')}, split {manifest['split']}"))
    print(f"records {manifest['records']:,} in {len(manifest['shards'])} shards")
    used = [r for r in manifest.get("recordings", []) if r["outcome"] == "used"]
    for title, values in {
        "electrodes": (VOCABULARY[electrode] for r in used for electrode in recorded_electrodes(r)),
        "recorded at": (f"{r['rate']:g} Hz" for r in used),
        "montages": (r["reference"] for r in used if r.get("reference")),
    }.items():
        if counts := collections.Counter(values).most_common():
            print(title, escape(", ".join(f"{value} ({count:,})" for value, count in counts)))
    if "recordings" in manifest:
        print_recordings(manifest, "in all")
    if verify:
        _verify(shards)
        print("every record is as the manifest says")
    print(f"content {manifest['content_hash']}")


def _verify(shards):
    """Read every record; UserError names the first that is not what the manifest says."""
    import hashlib

    import msgpack
    from tqdm import tqdm

    from neurolm_jax.corpus.parts import entry
    from neurolm_jax.eeg.records import decode

    manifest, digest = shards.manifest, hashlib.sha256()
    for i in tqdm(range(len(shards.source)), unit=" records", desc="verify", disable=None):
        data = shards.source[i]
        digest.update(hashlib.sha256(data).digest())
        index = {key: values[i] for key, values in manifest["index"].items()}
        if manifest["kind"] == "text":
            found = {"tokens": len(msgpack.unpackb(data)["tokens"]) // 2}
        else:
            record = decode(data)
            found = entry(record) | {"label": record.label}
            number = index.pop("recording")
            if manifest["recordings"][number]["name"] != record.recording:
                raise UserError(f"{shards.path}: record {i} is of {record.recording}, the manifest says another")
        if wrong := {key for key in index if index[key] != found[key]}:
            raise UserError(f"{shards.path}: record {i} has another {', '.join(sorted(wrong))} than the manifest says")
    if digest.hexdigest() != manifest["content_hash"]:
        raise UserError(f"{shards.path}: its records are not those the manifest was written for; prepare it again")


if __name__ == "__main__":
    run(main)
