"""Which recordings lie under the inputs, and what their paths and sidecars tell about them."""

import collections
import csv
import dataclasses
import functools
import json
import pathlib
import re
from collections.abc import Iterable

from neurolm_jax.eeg.positions import read_positions
from neurolm_jax.errors import UserError

# Of the formats that MNE reads, those of EEG. A folder with such a name is one recording.
SUFFIXES = (".edf", ".bdf", ".gdf", ".vhdr", ".set", ".fif", ".fif.gz", ".cnt", ".mff", ".nxe", ".lay", ".cdt", ".eeg")
_TUH = re.compile(
    r"(?P<subject>[a-z0-9]{8})/(?P<session>s\d{3}_\d{4})/(?P<montage>\d\d_tcp_(?P<reference>ar|le)(_a)?)/[^/]*$"
)
# As in TUAB and TUAR, whose folders do not name the subject; and in TUEV, AAAAAAAR/AAAAAAAR_00000001.edf.
_TUH_FILE = re.compile(
    r"((?P<montage>\d\d_tcp_(?P<reference>ar|le)(_a)?)/)?(?P<subject>[a-z0-9]{8})_(?P<session>s\d{3})_t\d{3}\.edf$"
)
_TUH_EVENTS = re.compile(r"/(?P<subject>[a-z]{8})/(?P=subject)_\d{8}\.edf$")
_BIDS = re.compile(r"^sub-(?P<subject>[^_/]+)(_ses-(?P<session>[^_/]+))?.*_eeg$")


@dataclasses.dataclass(frozen=True)
class Source:
    """A recording's path; ``name`` is that path below its input. The rest is what path and sidecars tell, or None.

    cohort: what the subject's name is unique in. mains: Hz. left_out: pairs of channel and reason. positions: pairs of
    channel and place on the head, to the right, front and up. renaming: pairs of channel and electrode, of the user's
    own. excluded: why no
    sample of it may be used; fault: why none can be. participant, events: see ``Outcome``. size, modified: bytes, and
    nanoseconds of the clock, as they were when it was found: work on what it was before is not taken for it.
    """

    path: pathlib.Path
    name: str
    subject: str | None = None
    cohort: str | None = None
    session: str | None = None
    reference: str | None = None
    mains: float | None = None
    left_out: tuple[tuple[str, str], ...] = ()
    positions: tuple[tuple[str, tuple[float, ...]], ...] = ()
    renaming: tuple[tuple[str, str], ...] = ()
    participant: tuple[tuple[str, str], ...] = ()
    events: tuple[tuple[str, int], ...] = ()
    excluded: str | None = None
    fault: str | None = None
    size: int = 0
    modified: int = 0


def find(inputs: Iterable[pathlib.Path]) -> tuple[list[Source], dict[str, int]]:
    """The recordings among the inputs and under them, in the order of their paths; and how many other files there are,
    by suffix.

    Raises:
      UserError: there is none.
    """
    found, others = [], collections.Counter()
    for root in inputs:
        base = root.parent if root.is_file() or is_recording(root) else root
        for path in sorted(_under(root)):
            if is_recording(path):
                found.append(dataclasses.replace(_describe(path, base), **_state(path)))
            else:
                others[path.suffix.lower() or path.name] += 1
    if not found:
        raise UserError(f"{', '.join(map(str, inputs))}: no recording of a format that MNE reads")
    return found, dict(others)


def is_recording(path: pathlib.Path) -> bool:
    """Whether the name is that of a recording; the samples of a BrainVision header are not one of their own."""
    if path.name.startswith(".") or not path.name.lower().endswith(SUFFIXES):
        return False
    return path.suffix.lower() != ".eeg" or not path.with_suffix(".vhdr").exists()


def _under(path):
    if is_recording(path) or not path.is_dir():
        yield path
    else:
        for inner in path.iterdir():
            yield from _under(inner)


def _state(path):
    """Size and time of a file; none of a link to what is not there, which cannot be read either."""
    if not path.exists():
        return {}
    told = path.stat()
    return {"size": told.st_size, "modified": told.st_mtime_ns}


def _describe(path, base):
    name = path.relative_to(base).as_posix()
    if match := _TUH.search(path.as_posix()) or _TUH_FILE.search(path.as_posix()):
        reference = match["reference"] and match["reference"].upper()
        return Source(path, name, match["subject"], "tuh", match["session"], reference)
    if match := _TUH_EVENTS.search(path.as_posix()):
        return Source(path, name, match["subject"], "tuh")
    if (match := _BIDS.match(path.stem)) and (root := _bids_root(path.parent)):
        try:
            told = _sidecars(path, root, match["subject"])
        except UserError as error:
            told = {"fault": str(error)}
        return Source(path, name, match["subject"], session=match["session"], **told)
    return Source(path, name)


def _sidecars(path, root, subject):
    mains = _sidecar(path, root).get("PowerLineFrequency")
    known = isinstance(mains, (int, float)) and not isinstance(mains, bool)
    return {
        "cohort": _bids_name(root),
        "mains": float(mains) if known else None,
        "left_out": _bids_channels(path),
        "positions": tuple((name, tuple(place.tolist())) for name, place in read_positions(path).items()),
        "participant": _participant(root, subject),
        "events": _bids_events(path),
    }


@functools.lru_cache(maxsize=64)
def _bids_root(folder):
    here = (folder, *folder.parents)
    return next((f for f in here if (f / "dataset_description.json").is_file()), None)


@functools.lru_cache(maxsize=64)
def _bids_name(root):
    """The data set's name, as its description has it; None if it has none."""
    name = _json_object(root / "dataset_description.json").get("Name")
    return name if isinstance(name, str) else None


def _json_object(file):
    try:
        return dict(json.loads(file.read_text(encoding="utf-8-sig")))
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"{file}: not a JSON object ({error}); correct the sidecar") from error


def _sidecar(path, root):
    """Fields of every ``_eeg.json`` that holds for a file of a BIDS tree, the nearer the stronger."""
    entities = set(path.stem.split("_"))
    folders = [root, *reversed([f for f in path.parents if root in f.parents])]
    fields = {}
    for folder in folders:
        for file in sorted(folder.glob("*eeg.json"), key=lambda f: (len(f.stem), f.name)):
            if set(file.stem.split("_")) <= entities:
                fields |= _json_object(file)
    return fields


def _bids_channels(path):
    """Channels that ``_channels.tsv`` calls bad or of another kind than EEG."""
    left_out = []
    for row in _table(path.with_name(path.stem.removesuffix("eeg") + "channels.tsv")):
        if row.get("type", "EEG").upper() != "EEG":
            left_out.append((row.get("name", ""), f"of type {row['type']}"))
        elif row.get("status", "").lower() == "bad":
            left_out.append((row.get("name", ""), "marked bad"))
    return tuple(left_out)


def _bids_events(path):
    rows = _table(path.with_name(path.stem.removesuffix("eeg") + "events.tsv"))
    return tuple(collections.Counter(row.get("trial_type", "event") for row in rows).items())


@functools.lru_cache(maxsize=4096)
def _participant(root, subject):
    rows = [row for row in _table(root / "participants.tsv") if row.get("participant_id") == f"sub-{subject}"]
    return tuple(rows[0].items()) if rows else ()


def _table(file):
    """Rows of a BIDS table; [] if there is none."""
    if not file.is_file():
        return []
    try:
        with file.open(encoding="utf-8-sig", newline="") as lines:
            return [{k: v for k, v in row.items() if k and v} for row in csv.DictReader(lines, delimiter="\t")]
    except (OSError, UnicodeError, csv.Error) as error:
        raise UserError(f"{file}: not a table in UTF-8 ({error}); correct the sidecar") from error
