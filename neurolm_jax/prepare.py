"""Turn recordings, task data or text into shards and a manifest.

  python -m neurolm_jax.prepare eeg  IN... --out DIR [--mains 50|60] [--workers N | --scheduler ADDRESS]
                                     [--exclude NAME=DIR ...] [--rename FILE] [--reader_options NAME=VALUE ...]
  python -m neurolm_jax.prepare task NAME IN --out DIR [--split published|subject|official] [--seed N] [--skip_faulty]
                                     [--exclude NAME=DIR ...] [--rename FILE]
  python -m neurolm_jax.prepare text IN... --out DIR

``eeg`` reads files and folders, BIDS and TUH trees among them; stopped, it goes on where it was. Subjects and
recordings of the test and validation parts of tasks that lie beside DIR, or are named by --exclude, are left out.
``task`` writes ``DIR/windows/{train,validation,test}``, the labelled windows, and
``DIR/recordings/{train,validation}``, the same recordings whole, for the stages that need no labels. NAME is one of
those of docs/tasks.md, or a file of your own, YAML or Python. No subject is on two sides of the split; what --split
official repeats of the released code is told there too. Of the sets named by --exclude, subjects and recordings of the
test and validation parts are left out of this one's training and validation parts.
--rename names a file that tells electrodes where channels have other names: lines of NAME,ELECTRODE.
``text`` writes ``DIR/{train,validation}`` of plain text, rows of .jsonl and .parquet, docstrings of Python files and
data sets hf:OWNER/NAME.
A folder that is there already is kept, if it is what is asked for; remove it to prepare it anew.
"""

import os
import pathlib
import shutil
from collections.abc import Mapping, Sequence
from typing import Any

from neurolm_jax.command import argument_parser, run
from neurolm_jax.corpus.documents import HUGGING_FACE
from neurolm_jax.corpus.excluded import NOTHING, Excluded, beside, excluded, named
from neurolm_jax.corpus.finished import Asked, check_finished
from neurolm_jax.data import remote, shards
from neurolm_jax.eeg.opening import parse_options
from neurolm_jax.eeg.preprocessing import Preprocessing
from neurolm_jax.eeg.renaming import read_renaming
from neurolm_jax.eeg.tasks import NAMES, Task, load_task
from neurolm_jax.eeg.tasks.base import SPLITS
from neurolm_jax.eeg.tasks.splits import WAYS
from neurolm_jax.errors import UserError
from neurolm_jax.escaping import escape


def main() -> None:
    parser = argument_parser("prepare", __doc__)
    kinds = parser.add_subparsers(dest="kind", required=True)
    eeg = kinds.add_parser("eeg", help="recordings of any format that MNE reads")
    eeg.add_argument("inputs", nargs="+", type=pathlib.Path)
    eeg.add_argument(
        "--mains",
        type=float,
        choices=(50, 60),
        help="Hz; by default of the BIDS sidecar, else of the header, else of the spectrum",
    )
    spread = eeg.add_mutually_exclusive_group()
    spread.add_argument("--workers", type=int, default=0, help="processes of a dask cluster on this machine")
    spread.add_argument("--scheduler", help="address of a running dask scheduler")
    eeg.add_argument("--source", default="eeg", help="a name for the corpus, kept in every record")
    eeg.add_argument(
        "--reader_options",
        nargs="+",
        action="extend",
        default=[],
        metavar="NAME=VALUE",
        help="of MNE's readers, such as data_format=int32 for .cnt",
    )
    task = kinds.add_parser("task", help="a downstream set with labels")
    task.add_argument("name", help=f"{', '.join(NAMES)}, FILE.yaml or FILE.py")
    task.add_argument("inputs", nargs=1, type=pathlib.Path)
    task.add_argument("--split", choices=WAYS, default=WAYS[0])
    task.add_argument("--seed", type=int, help="of the choice of subjects; 0 by default")
    skip = "leave faulty recordings out, instead of stopping"
    task.add_argument("--skip_faulty", "--skip-faulty", action="store_true", help=skip)
    for kind in (eeg, task):
        kind.add_argument(
            "--exclude",
            nargs="+",
            action="extend",
            default=[],
            metavar="NAME=DIR",
            help="prepared tasks to keep apart from",
        )
        kind.add_argument("--rename", type=pathlib.Path, metavar="FILE", help="lines of NAME,ELECTRODE, for channels")
    words = kinds.add_parser("text", help="plain text, jsonl, parquet, docstrings of Python files, hf:OWNER/NAME")
    words.add_argument("inputs", nargs="+")
    for kind in (eeg, task, words):
        kind.add_argument("--out", required=True, help="a folder, or an address such as gs://BUCKET/FOLDER")
    arguments = parser.parse_args()

    for path in arguments.inputs:
        if not str(path).startswith(HUGGING_FACE) and not os.path.lexists(path):
            raise UserError(f"{path}: no such file or folder")
    asked = _asked(arguments)
    url = arguments.out if remote.is_url(arguments.out) else None
    if url and (there := remote.find(url, "**/manifest.json")):
        folders = [address.removesuffix("/manifest.json") for address in there]
        check_finished(url, folders, asked, _without(arguments, url))
        print(f"{url}: already prepared")
        return
    # Shards are written on local disks alone; those for elsewhere are copied there when they are whole.
    arguments.out = remote.staging(url) if url else pathlib.Path(arguments.out)
    if arguments.out.exists():
        there = [file.parent for file in sorted(arguments.out.rglob("manifest.json"))]
        if not there:
            raise UserError(f"{arguments.out}: exists and was not made by prepare; give another --out")
        check_finished(arguments.out, there, asked, _without(arguments, url or arguments.out))
        print(f"{arguments.out}: already prepared")
    elif arguments.kind == "eeg":
        prepare_eeg(arguments, _without(arguments, url or arguments.out), asked.reader_options)
    elif arguments.kind == "task":
        options = {"way": asked.way, "seed": asked.seed, "skip_faulty": arguments.skip_faulty}
        options |= {"without": _without(arguments, url or arguments.out), "renaming": asked.renaming}
        prepare_task(load_task(arguments.name), arguments.inputs[0], arguments.out, **options)
    else:
        prepare_text(arguments.inputs, arguments.out)
    if url:
        remote.upload(arguments.out, url)
        shutil.rmtree(arguments.out)
        print(f"{url}: copied there")


def _asked(arguments) -> Asked:
    inputs = tuple(map(str, arguments.inputs))
    if arguments.kind == "eeg":
        options = parse_options(arguments.reader_options) if arguments.reader_options else {}
        named = {"renaming": _renaming(arguments), "reader_options": options}
        return Asked("eeg", inputs, arguments.source, arguments.mains, **named)
    if arguments.kind == "text":
        return Asked("text", inputs)
    if arguments.split == "official" and arguments.seed is not None:
        raise UserError("--seed: --split official has no choice of subjects to make; leave it out")
    name, seed = load_task(arguments.name).name, arguments.seed or 0
    return Asked("task", source=name, way=arguments.split, seed=seed, renaming=_renaming(arguments))


def _renaming(arguments):
    return read_renaming(arguments.rename) if arguments.rename else {}


def _without(arguments, out: str | pathlib.Path) -> Excluded:
    """What must not be learnt from: of the sets that are named, and for a corpus of those beside it."""
    if arguments.kind == "text":
        return NOTHING
    found = beside(out) if arguments.kind == "eeg" else {}
    for name, folders in named(arguments.exclude).items():
        found.setdefault(name, []).extend(folders)
    return excluded(found)


def prepare_eeg(arguments, without: Excluded, reader_options: Mapping[str, Any]) -> None:
    """Shards of whole recordings, of whatever format MNE reads, and what became of each."""
    from neurolm_jax.corpus import build
    from neurolm_jax.reporting.console import print_recordings

    if arguments.workers < 0:
        raise UserError(f"--workers must not be negative, not {arguments.workers}")
    settings = Preprocessing(mains=arguments.mains)
    spread = arguments.workers, arguments.scheduler
    manifest = build.build(
        arguments.inputs,
        arguments.out,
        settings,
        arguments.source,
        without,
        *spread,
        _renaming(arguments),
        reader_options,
    )
    print_recordings(manifest, str(arguments.out))


def prepare_task(task: Task, path: pathlib.Path, out: pathlib.Path, **options) -> None:
    """Shards of a task's windows and recordings, split by split; options as of ``write_task``."""
    from neurolm_jax.corpus.labelled import write_task
    from neurolm_jax.reporting.console import print_recordings

    write_task(task, path, out, **options)
    for split in SPLITS:
        print_recordings(shards.read_manifest(out / "windows" / split), str(out / "windows" / split))


def prepare_text(inputs: Sequence[str | pathlib.Path], out: pathlib.Path) -> None:
    """Token shards of text, a part of them for validation, and what was left out."""
    from neurolm_jax.corpus.text import write_text

    written = write_text(inputs, out)
    print(f"{out}: {written.tokens:,} tokens of {written.documents:,} documents")
    for reason, count in written.skipped.items():
        print(escape(f"  left out {count:,} files: {reason}"))


if __name__ == "__main__":
    run(main)
