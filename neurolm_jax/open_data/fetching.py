"""All files of some sets, several at a time."""

import concurrent.futures
import pathlib
import threading
import time
import zipfile
from collections.abc import Sequence
from fnmatch import fnmatch

from neurolm_jax.errors import JobError, UserError
from neurolm_jax.open_data import transfer
from neurolm_jax.open_data.listing import RemoteFile, published_files
from neurolm_jax.open_data.registry import OpenSet


def download(sets: Sequence[OpenSet], out: pathlib.Path, workers: int = 4, only: str | None = None) -> None:
    """Fetch sets to ``out/NAME``, in the layout in which each is published; archives are unpacked there.

    Files that are there already and right are not fetched again. A failure of one file does not keep the others.

    Args:
      workers: files fetched at a time.
      only: of the files, those whose path matches this pattern.

    Raises:
      UserError: ``only`` leaves none.
      JobError: a file could not be had, or is not what the set's home publishes.
    """
    import requests

    failures: list[str] = []
    with requests.Session() as session:
        session.headers["User-Agent"] = "neurolm_jax"
        for source in sets:
            print(source.terms(), flush=True)
            files = published_files(source, session)
            if only is not None:
                files = [file for file in files if fnmatch(file.path, only)]
                if not files:
                    raise UserError(f"--only {only}: {source.name} has no such file")
            failures += _fetch_all(source, files, out / source.name, session, workers)
    if failures:
        raise JobError(f"{len(failures):,} files failed: {failures[0]}; the same command fetches what is missing")


def _fetch_all(source, files, folder, session, workers):
    """Fetch the files of one set; returns faults, one for each file that failed."""
    from tqdm import tqdm

    folder.mkdir(parents=True, exist_ok=True)
    _record(files, folder)
    faults, others, stop, lock = [], [], threading.Event(), threading.Lock()
    sha1_sums = source.sha1_sums()
    known = [file.size for file in files]
    total = None if None in known else sum(known)
    with tqdm(total=total, unit="B", unit_scale=True, unit_divisor=1000, desc=source.name, disable=None) as bar:

        def progress(count: int) -> None:
            with lock:
                bar.update(count)

        def one(file: RemoteFile) -> None:
            target = folder / file.path
            if transfer.is_there(file, target):
                progress(target.stat().st_size)
            else:
                transfer.fetch(file, target, session, progress, stop)
            if (sum_ := sha1_sums.get(target.name)) and not transfer.has_hash(target, "sha1", sum_):
                others.append(file.path)
            if target.suffix == ".zip":
                unpack(target, folder)

        with concurrent.futures.ThreadPoolExecutor(workers) as pool:
            tasks = [pool.submit(one, file) for file in files]
            try:
                for done, task in enumerate(concurrent.futures.as_completed(tasks), start=1):
                    bar.set_postfix_str(f"{done:,} of {len(files):,} files")
                    if isinstance(error := task.exception(), JobError):
                        faults.append(str(error))
                    elif error:
                        raise error
            except BaseException:  # an interruption, or a full disk: the others end with what they have
                stop.set()
                pool.shutdown(wait=True, cancel_futures=True)
                raise
    print(f"{folder}: {len(files) - len(faults):,} of {len(files):,} files, each as its home publishes it")
    if others:
        edition = f"{len(others):,} files are of another edition than the one that {source.sha1} lists"
        print(f"{folder}: note: {edition}, such as {min(others)}")
    return faults


def _record(files, folder):
    """The list that files are checked against, for whoever asks later which edition of the set this is."""
    lines = [f"{' '.join(f'{kind}:{digest}' for kind, digest in f.hashes.items())}  {f.path}\n" for f in files]
    (folder / "files.txt").write_text(f"# read on {time.strftime('%Y-%m-%d')}\n" + "".join(lines))


def unpack(archive: pathlib.Path, folder: pathlib.Path) -> None:
    """Unpack what of an archive is not in ``folder`` yet; nothing gets outside of it.

    Raises:
      JobError: it is no archive, or damaged.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            for member in opened.infolist():
                target = folder / member.filename
                if folder.resolve() not in target.resolve().parents:
                    raise JobError(f"{archive}: holds a file that would lie outside {folder}, {member.filename!r}")
                if not (target.is_file() and target.stat().st_size == member.file_size):
                    opened.extract(member, folder)
    except (zipfile.BadZipFile, EOFError) as error:
        raise JobError(f"{archive}: cannot be unpacked: {error}") from error
