"""A user's own table of which channel is which electrode."""

import csv
import pathlib
from collections.abc import Mapping
from typing import TYPE_CHECKING

from neurolm_jax.eeg.electrodes import electrode_id
from neurolm_jax.errors import UserError

if TYPE_CHECKING:  # MNE takes a second to import
    import mne


def read_renaming(file: pathlib.Path) -> dict[str, str]:
    """Electrode by channel name, from a file of two columns with a tab or a comma between them.

    Empty lines, and those that begin with a number sign, are passed over.

    Raises:
      UserError: no such file, no text, a line of another form, an electrode that the vocabulary does not have, or a
        name that is there twice.
    """
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeError) as error:
        raise UserError(f"--rename {file}: cannot be read as text in UTF-8 ({error})") from error
    renaming: dict[str, str] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        cells = [cell.strip() for cell in next(csv.reader([line], delimiter="\t" if "\t" in line else ","))]
        if len(cells) != 2 or not all(cells):
            raise UserError(
                f"--rename {file}: line {number}: want a channel's name, a tab or a comma, and its electrode"
            )
        name, electrode = cells
        if electrode_id(electrode) is None:
            raise UserError(f"--rename {file}: line {number}: {electrode!r} is no electrode of the vocabulary")
        if name in renaming:
            raise UserError(f"--rename {file}: line {number}: {name!r} is there twice")
        renaming[name] = electrode
    if not renaming:
        raise UserError(f"--rename {file}: holds no line with a name and an electrode")
    return renaming


def rename(raw: "mne.io.BaseRaw", renaming: Mapping[str, str], name: str) -> "mne.io.BaseRaw":
    """Call the channels of an ``mne.io.Raw`` as a user's table says; names that it does not have are passed over.

    Raises:
      UserError: two channels would have one name.
    """
    known = {channel: renaming[channel] for channel in raw.ch_names if channel in renaming}
    if not known:
        return raw
    names = [known.get(channel, channel) for channel in raw.ch_names]
    for channel, new in known.items():
        if names.count(new) > 1:
            raise UserError(f"{name}: --rename calls {channel} {new}, but there is another {new}; rename that one too")
    raw = raw.copy().rename_channels(known, verbose="error")
    kinds = dict(zip(raw.ch_names, raw.get_channel_types()))
    other = {new: "eeg" for new in known.values() if kinds[new] != "eeg"}  # a user's word goes before a header's
    return raw.set_channel_types(other, on_unit_change="ignore", verbose="error") if other else raw
