"""The files of recordings: where they lie under a folder, which belong together, and which are not there yet."""

import collections
import hashlib
import os
import pathlib
import re
from collections.abc import Callable, Iterator

# Of the formats that MNE reads, those of EEG, and MNE's readers of each. A folder with such a name is one recording.
READERS = {
    ".edf": ("read_raw_edf",),
    ".bdf": ("read_raw_bdf",),
    ".gdf": ("read_raw_gdf",),
    ".vhdr": ("read_raw_brainvision",),
    ".set": ("read_raw_eeglab",),
    ".fif": ("read_raw_fif",),
    ".fif.gz": ("read_raw_fif",),
    ".cnt": ("read_raw_cnt", "read_raw_ant"),
    ".mff": ("read_raw_egi",),
    ".nxe": ("read_raw_eximia",),
    ".lay": ("read_raw_persyst",),
    ".cdt": ("read_raw_curry",),
    ".eeg": ("read_raw_nihon",),
}
SUFFIXES = tuple(READERS)
# Folders of a BIDS tree that hold no raw data of the tree's own people, or the same people's once more.
NOT_SEARCHED = ("derivatives", "sourcedata", "code")
POINTER_BYTES = 32768  # git-annex writes no longer one
_NAMED_FILES = {".vhdr": ("DataFile", "MarkerFile"), ".lay": ("File",)}
# Names beside a recording as its reader looks for them; readers take no other case of letters.
_BESIDE = {
    ".set": (".fdt",),
    ".cdt": (".cdt.dpa", ".cdt.dpo", ".cdt.cef", ".cdt.ceo"),
    ".eeg": (".PNT", ".LOG", ".21E"),
}
_LATER_PART = (
    re.compile(r"(?P<stem>.+)-(?P<number>[1-9]\d*)(?P<suffix>\.fif(\.gz)?)", re.IGNORECASE),
    re.compile(r"(?P<stem>.+_split-)(?P<number>\d+)(?P<suffix>_[^_]+\.fif(\.gz)?)", re.IGNORECASE),
)


def suffix_of(name: str) -> str:
    """Return the suffix, in small letters, by which a recording's format is known; "" of other names."""
    lower = name.lower()
    return next((suffix for suffix in (".fif.gz", *SUFFIXES) if lower.endswith(suffix)), "")


def stem_of(name: str) -> str:
    """Return a recording's name without its suffix."""
    return name[: len(name) - len(suffix_of(name))] if suffix_of(name) else name


def is_searched(name: str) -> bool:
    """Whether recordings are looked for in a folder of this name: not in hidden ones, nor in those of NOT_SEARCHED."""
    return not name.startswith(".") and name.casefold() not in NOT_SEARCHED


def files_below(
    root: pathlib.Path, visited: set[str] | None = None, skipped: Callable[[pathlib.Path], None] | None = None
) -> Iterator[pathlib.Path]:
    """Yield files, and folders that are recordings, at or below ``root``, each folder's once, by whatever links it is
    reached.

    A folder's own place goes before a link to it. A link to a folder that holds the link is not followed.

    Args:
      visited: real paths of folders that were searched before; those searched now are added.
      skipped: called with each folder that is not searched for its name.
    """
    visited = set() if visited is None else visited
    if is_recording_name(root.name) or not root.is_dir():
        yield root
        return
    folders, links = [root], collections.deque()
    while folders or links:
        folder = folders.pop() if folders else links.popleft()
        real = os.path.realpath(folder)
        if real in visited:
            continue
        visited.add(real)
        for path in sorted(folder.iterdir()):
            if is_recording_name(path.name) or not path.is_dir():
                yield path
            elif not is_searched(path.name) or (path.is_symlink() and _in_unsearched(path)):
                if skipped:
                    skipped(path)
            elif not path.is_symlink():
                folders.append(path)
            elif not _holds(os.path.realpath(path), real):
                links.append(path)


def _holds(folder: str, other: str) -> bool:
    return os.path.commonpath([folder, other]) == folder


def _in_unsearched(link):
    """Whether a link leads into a folder of a BIDS tree that is not searched."""
    real = pathlib.Path(os.path.realpath(link))
    root = next((f for f in reversed(real.parents) if os.path.lexists(f / "dataset_description.json")), None)
    return root is not None and not all(map(is_searched, real.relative_to(root).parts))


def is_recording_name(name: str) -> bool:
    """Whether a file, or folder, has the name of a recording."""
    return not name.startswith(".") and bool(suffix_of(name))


def not_fetched(path: pathlib.Path) -> str | None:
    """Say what stands in the place of a file's content, where it is a pointer of git-annex or Git LFS or a link that
    leads nowhere; None where the content is there. Of a folder that is a recording, the first such file in it counts.
    """
    if not path.exists():
        if not path.is_symlink():
            return None
        target = os.readlink(path)
        if "annex/objects" in target or "annex/objects" in os.path.realpath(path):
            return f"not fetched: {path.name} is a link of git-annex; 'git annex get' fetches it"
        return f"not fetched: {path.name} is a link to {target}, which is not there"
    if path.is_dir():
        if not suffix_of(path.name):
            return None
        return next((fault for file in sorted(path.rglob("*")) if (fault := not_fetched(file))), None)
    if not path.is_file() or path.stat().st_size > POINTER_BYTES:
        return None
    with path.open("rb") as file:
        head = file.read(512)
    if re.match(rb"(/|(\.\./)*\.git/)annex/objects/", head):
        return f"not fetched: {path.name} is a pointer of git-annex; 'git annex get' fetches it"
    if re.match(rb"version https?://(git-lfs|hawser)\.github\.com/spec/", head):
        return f"not fetched: {path.name} is a pointer of Git LFS; 'git lfs pull' fetches it"
    return None


class Files:
    """A view of recordings' files in which every folder is listed once.

    What it has seen it does not look up again: make a new one for each search.
    """

    def __init__(self) -> None:
        self._listings: dict[pathlib.Path, dict[str, str]] = {}
        self._samples: dict[pathlib.Path, set[str]] = {}

    def is_recording(self, path: pathlib.Path) -> bool:
        """Whether a path is a recording, not the samples of another file that is its header."""
        if not is_recording_name(path.name):
            return False
        if suffix_of(path.name) != ".eeg":
            return True
        return path.name.casefold() not in self._claimed(path.parent)

    def companions(self, path: pathlib.Path) -> dict[str, pathlib.Path]:
        """Return the other files that a recording's reader opens, by the name under which it looks for them.

        Of names that the header tells, also those are there that no file has; a file whose name differs only in the
        case of letters is taken for it.
        """
        suffix, stem = suffix_of(path.name), stem_of(path.name)
        named = [name for name in _named(path, _NAMED_FILES.get(suffix, ())) if "/" not in name]
        found = {name: self._find(path.parent, name.replace("$b", stem)) for name in named}
        found = {name: file or path.with_name(name) for name, file in found.items()}
        if suffix == ".vhdr" and not any(file.suffix.lower() == ".vmrk" and file.exists() for file in found.values()):
            found[f"{stem}.vmrk"] = self._find(path.parent, f"{stem}.vmrk")
        for ending in _BESIDE.get(suffix, ()):
            found[f"{stem}{ending}"] = self._find(path.parent, f"{stem}{ending}")
        return {name: file for name, file in found.items() if file is not None}

    def own(self, path: pathlib.Path) -> list[pathlib.Path]:
        """Return a recording's files, itself the first, with the later parts of one that is split into several."""
        found = [path, *self.companions(path).values()]
        if suffix_of(path.name) in (".fif", ".fif.gz"):
            names = sorted(self._listing(path.parent).values())
            found += [path.with_name(name) for name in names if first_part_name(name) == path.name]
        return list(dict.fromkeys(found))

    def watched(self, path: pathlib.Path) -> list[pathlib.Path]:
        """Return every file whose change may change what is read of a recording."""
        found = self.own(path) + (sorted(path.rglob("*")) if path.is_dir() else [])
        if suffix_of(path.name) == ".set":  # only its own reader knows which .fdt file it names
            names = sorted(self._listing(path.parent).values())
            found += [path.with_name(name) for name in names if name.lower().endswith(".fdt")]
        return list(dict.fromkeys(found))

    def state(self, path: pathlib.Path) -> str:
        """Digest of names, sizes in bytes and times of a recording's files: another one, once any of them has changed.
        A file that is not there has no size."""
        told: list[tuple[str, int | None, int | None]] = []
        for file in self.watched(path):
            try:
                found = file.stat()
            except OSError:
                told.append((file.name, None, None))
            else:
                told.append((file.name, found.st_size if file.is_file() else None, found.st_mtime_ns))
        return hashlib.sha256(repr(told).encode("utf-8", "surrogateescape")).hexdigest()[:32]

    def later_part(self, path: pathlib.Path) -> tuple[pathlib.Path, bool] | None:
        """Return a FIF file's first part, and whether that is there, if the file goes on where another ends; None of
        other files, whatever their names."""
        first = first_part_name(path.name)
        if first is None or not path.is_file() or not _goes_on(path):
            return None
        there = self._find(path.parent, first)
        return there or path.with_name(first), there is not None

    def _find(self, folder, name):
        """A file of a name in a folder, else one whose name differs from it only in the case of letters."""
        path = folder / name
        if os.path.lexists(path):
            return path
        other = self._listing(folder).get(name.casefold())
        return folder / other if other else None

    def _listing(self, folder):
        if folder not in self._listings:
            names = sorted(os.listdir(folder), reverse=True) if folder.is_dir() else []
            self._listings[folder] = {name.casefold(): name for name in names}
        return self._listings[folder]

    def _claimed(self, folder):
        """Names, in small letters, of files that BrainVision headers in a folder name, or stand beside."""
        if folder not in self._samples:
            claimed = set()
            for name in self._listing(folder).values():
                if name.lower().endswith((".vhdr", ".ahdr")):
                    claimed.add(f"{name[:-5]}.eeg".casefold())
                    claimed |= {named.casefold() for named in _named(folder / name, _NAMED_FILES[".vhdr"])}
            self._samples[folder] = claimed
        return self._samples[folder]


def first_part_name(name: str) -> str | None:
    """Return the name of the first part, of a later part's name by either of MNE's ways (``x-1.fif``,
    ``x_split-02_eeg.fif``); None of other names."""
    plain, split = (pattern.fullmatch(name) for pattern in _LATER_PART)
    if split and int(split["number"]) > 1:
        return f"{split['stem']}{1:0{len(split['number'])}d}{split['suffix']}"
    return f"{plain['stem']}{plain['suffix']}" if plain and not split else None


def _goes_on(path):
    """Whether a FIF file says that it goes on where another one ends."""
    from mne._fiff.constants import FIFF
    from mne._fiff.open import fiff_open
    from mne._fiff.tag import read_tag
    from mne._fiff.tree import dir_tree_find

    try:
        file, tree, _ = fiff_open(path, verbose="error")
        with file:
            for node in dir_tree_find(tree, FIFF.FIFFB_REF):
                for entry in node["directory"]:
                    if entry.kind == FIFF.FIFF_REF_ROLE:
                        if int(read_tag(file, entry.pos).data.item()) == FIFF.FIFFV_ROLE_PREV_FILE:
                            return True
    except Exception:  # noqa: BLE001 (foreign bytes; what is wrong with them is told when the recording is read)
        return False
    return False


def _named(path, keys):
    """Names of files that a header tells under some keys; none of one that cannot be read, as is told later."""
    if not keys or not path.is_file():
        return []
    with path.open("rb") as file:
        text = decode(file.read(1 << 20))
    matches = (re.search(rf"(?im)^[ \t]*{key}[ \t]*=(.*)$", text) for key in keys)
    return [name for match in matches if match and (name := match[1].strip())]


def decode(data: bytes) -> str:
    """Return the text of bytes in UTF-8 or UTF-16 with its mark, else as Latin-1, which every byte belongs to."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return data.decode("utf-16", "replace")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("latin-1")
