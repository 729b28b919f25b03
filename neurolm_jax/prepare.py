"""Turn recordings, task data or text into shards and a manifest.

  python -m neurolm_jax.prepare eeg  IN... --out DIR [--mains 50|60] [--workers N | --scheduler ADDRESS]
                                     [--exclude NAME=DIR ...]
  python -m neurolm_jax.prepare task NAME IN --out DIR [--split published|subject|official] [--seed N] [--skip-faulty]
                                     [--exclude NAME=DIR ...]
  python -m neurolm_jax.prepare text IN... --out DIR

``eeg`` reads files and folders, BIDS and TUH trees among them; stopped, it goes on where it was. Subjects and
recordings of the test and validation parts of tasks that lie beside DIR, or are named by --exclude, are left out.
``task`` writes ``DIR/windows/{train,validation,test}``, the labelled windows, and
``DIR/recordings/{train,validation}``, the same recordings whole, for the stages that need no labels. NAME is one of
those of docs/tasks.md, or a Python file of your own. No subject is on two sides of the split; what --split official
repeats of the released code is told there too. Of the sets named by --exclude, subjects and recordings of the test and
validation parts are left out of this one's training and validation parts.
A folder that is there already is kept; remove it to prepare it anew.
"""

import pathlib
import shutil
import time
from collections.abc import Iterator, Sequence

from neurolm_jax.command import argument_parser, run
from neurolm_jax.corpus.excluded import NOTHING, Excluded, excluded
from neurolm_jax.data import remote, shards, text
from neurolm_jax.eeg.preprocessing import Preprocessing
from neurolm_jax.eeg.tasks import NAMES, Task, load_task
from neurolm_jax.eeg.tasks.base import SPLITS
from neurolm_jax.eeg.tasks.splits import WAYS
from neurolm_jax.errors import UserError
from neurolm_jax.outputs import appearing_folder


def main() -> None:
    parser = argument_parser("prepare", __doc__)
    kinds = parser.add_subparsers(dest="kind", required=True)
    eeg = kinds.add_parser("eeg", help="recordings of any format that MNE reads")
    eeg.add_argument("inputs", nargs="+", type=pathlib.Path)
    eeg.add_argument(
        "--mains", type=float, choices=(50, 60), help="Hz; by default of the sidecar, else of the spectrum"
    )
    spread = eeg.add_mutually_exclusive_group()
    spread.add_argument("--workers", type=int, default=0, help="processes of a dask cluster on this machine")
    spread.add_argument("--scheduler", help="address of a running dask scheduler")
    eeg.add_argument("--source", default="eeg", help="a name for the corpus, kept in every record")
    task = kinds.add_parser("task", help="a downstream set with labels")
    task.add_argument("name", help=f"{', '.join(NAMES)}, or FILE.py")
    task.add_argument("inputs", nargs=1, type=pathlib.Path)
    task.add_argument("--split", choices=WAYS, default=WAYS[0])
    task.add_argument("--seed", type=int, default=0, help="of the choice of subjects")
    task.add_argument("--skip-faulty", action="store_true", help="leave faulty recordings out, instead of stopping")
    for kind in (eeg, task):
        kind.add_argument(
            "--exclude",
            nargs="+",
            action="extend",
            default=[],
            metavar="NAME=DIR",
            help="prepared tasks to keep apart from",
        )
    words = kinds.add_parser("text", help="plain text, jsonl, parquet, docstrings of Python files, hf:OWNER/NAME")
    words.add_argument("inputs", nargs="+")
    for kind in (eeg, task, words):
        kind.add_argument("--out", required=True, help="a folder, or an address such as gs://BUCKET/FOLDER")
    arguments = parser.parse_args()

    for path in arguments.inputs:
        if not str(path).startswith(text.HUGGING_FACE) and not pathlib.Path(path).exists():
            raise UserError(f"{path}: no such file or folder")
    url = arguments.out if remote.is_url(arguments.out) else None
    if url and (there := remote.find(url, "**/manifest.json")):
        _check_asked(arguments, url, [address.removesuffix("/manifest.json") for address in there])
        print(f"{url}: already prepared")
        return
    # Shards are written on local disks alone; those for elsewhere are copied there when they are whole.
    arguments.out = remote.staging(url) if url else pathlib.Path(arguments.out)
    if arguments.out.exists():
        there = [file.parent for file in sorted(arguments.out.rglob("manifest.json"))]
        if not there:
            raise UserError(f"{arguments.out}: exists and was not made by prepare; give another --out")
        _check_asked(arguments, arguments.out, there)
        print(f"{arguments.out}: already prepared")
    elif arguments.kind == "eeg":
        prepare_eeg(arguments, _without(arguments, url or arguments.out))
    elif arguments.kind == "task":
        options = {"way": arguments.split, "seed": arguments.seed, "skip_faulty": arguments.skip_faulty}
        options["without"] = _without(arguments, url or arguments.out)
        prepare_task(load_task(arguments.name), arguments.inputs[0], arguments.out, **options)
    else:
        prepare_text(arguments.inputs, arguments.out)
    if url:
        remote.upload(arguments.out, url)
        shutil.rmtree(arguments.out)
        print(f"{url}: copied there")


def prepare_eeg(arguments, without: Excluded) -> None:
    """Shards of whole recordings, of whatever format MNE reads, and what became of each."""
    from neurolm_jax.corpus import build
    from neurolm_jax.reporting.console import print_recordings

    if arguments.workers < 0:
        raise UserError(f"--workers must not be negative, not {arguments.workers}")
    settings = Preprocessing(mains=arguments.mains)
    manifest = build.build(
        arguments.inputs, arguments.out, settings, arguments.source, without, arguments.workers, arguments.scheduler
    )
    print_recordings(manifest, str(arguments.out))


def _without(arguments, out: str | pathlib.Path) -> Excluded:
    """What must not be learnt from: of the sets that are named, and for a corpus of those beside it."""
    found = _beside(out) if arguments.kind == "eeg" else {}
    for name, folders in _named(arguments.exclude).items():
        found.setdefault(name, []).extend(folders)
    return excluded(found)


def _beside(out: str | pathlib.Path) -> dict[str, list[str]]:
    """Folders of the tasks beside a folder or address, by the name of each."""
    pattern = "*/windows/*/manifest.json"
    if remote.is_url(out):
        files = remote.find(out.rstrip("/").rpartition("/")[0], pattern)
    else:
        files = sorted(file.as_posix() for file in out.absolute().parent.glob(pattern))
    found: dict[str, list[str]] = {}
    for file in files:
        found.setdefault(file.split("/")[-4], []).append(file.removesuffix("/manifest.json"))
    return found


def _named(pairs: Sequence[str]) -> dict[str, list[str]]:
    """Folders of the sets of ``--exclude``."""
    found: dict[str, list[str]] = {}
    for pair in pairs:
        name, _, path = pair.partition("=")
        if remote.is_url(path):
            files = remote.find(path, "**/manifest.json")
        else:
            files = [file.as_posix() for file in sorted(pathlib.Path(path).rglob("manifest.json"))] if path else []
        if not files:
            raise UserError(f"--exclude {pair}: want NAME=FOLDER, a folder that 'prepare task' wrote")
        found.setdefault(name, []).extend(file.removesuffix("/manifest.json") for file in files)
    return found


def _check_asked(arguments, out, folders: Sequence[str | pathlib.Path]) -> None:
    """Refuse to take what is there for what is asked: something else, split otherwise, or not kept apart from what must
    not be learnt from now."""
    manifests = [shards.read_manifest(folder) for folder in folders]
    task = load_task(arguments.name).name if arguments.kind == "task" else None
    remedy = "remove the folder, or give another --out"
    for manifest in manifests:
        kind = "task" if "split_by" in manifest else manifest["kind"]
        if kind != arguments.kind or (task and manifest["source"] != task):
            raise UserError(f"{out}: holds {manifest.get('source', kind)}, not {task or arguments.kind}; {remedy}")
        if task and manifest["split_by"] != {"way": arguments.split, "seed": arguments.seed}:
            there = manifest["split_by"]
            raise UserError(f"{out}: prepared with --split {there['way']} --seed {there['seed']}; {remedy}")
    without = _without(arguments, out) if arguments.kind != "text" else NOTHING
    learnt = [(m, r) for m in manifests if m.get("split") != "test" for r in m.get("recordings", ())]
    for manifest, recording in learnt:
        cohort = manifest.get("cohort", recording.get("cohort"))
        digests = recording["hash"], *recording.get("file_hashes", ())
        reason = without.reason(cohort, recording["subject"], *digests)
        if reason and recording["outcome"] == "used":
            raise UserError(f"{out}: prepared without regard to {recording['name']}, {reason}; {remedy}")


def prepare_task(task: Task, path: pathlib.Path, out: pathlib.Path, **options) -> None:
    """Shards of a task's windows and recordings, split by split; options as of ``write_task``."""
    from neurolm_jax.corpus.labelled import write_task
    from neurolm_jax.reporting.console import print_recordings

    write_task(task, path, out, **options)
    for split in SPLITS:
        print_recordings(shards.read_manifest(out / "windows" / split), str(out / "windows" / split))


def prepare_text(inputs: Sequence[str | pathlib.Path], out: pathlib.Path) -> None:
    """Token shards of text, a part of them for validation."""
    from tqdm import tqdm

    begin, count = time.perf_counter(), 0

    def texts() -> Iterator[str]:
        nonlocal count
        documents = tqdm(text.documents(inputs), unit=" documents", desc="prepare", disable=None)
        for count, document in enumerate(documents, start=1):  # noqa: B007
            yield document

    with appearing_folder(out) as folder:
        writers = {split: shards.FolderWriter(folder / split) for split in ("train", "validation")}
        blocks = 0
        for blocks, (data, entry) in enumerate(text.blocks(texts()), start=1):
            writers["train" if blocks % text.VALIDATION else "validation"].write(data, entry)
        for split, writer in writers.items():
            seconds = time.perf_counter() - begin
            writer.finish({"kind": "text", "split": split, "inputs": list(map(str, inputs)), "seconds": seconds})
    print(f"{out}: {blocks * text.BLOCK:,} tokens of {count:,} documents")


if __name__ == "__main__":
    run(main)
