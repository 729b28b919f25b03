"""Files of features: .npz for NumPy, .parquet for tables. Rows are in the order of recordings, windows, seconds and
channels; neither needs memory for more than a part of them."""

import json
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from neurolm_jax.eeg.tasks.readers import foreign_bytes
from neurolm_jax.errors import UserError

SUFFIXES = (".npz", ".parquet")
ROWS_AT_ONCE = 16_384
KEY = "neurolm_jax"  # of what a .parquet file says about itself


class Part(NamedTuple):
    """A recording's rows [n], a structured array, and what is the same in all of them.

    channels, electrodes: names that a row's ``channel`` counts.
    """

    recording: str
    subject: str | None
    channels: Sequence[str]
    electrodes: Sequence[str]
    rows: np.ndarray


def check(out: pathlib.Path) -> None:
    """Raises UserError where such a file cannot be written: another suffix, no folder, or no package for it."""
    if out.suffix not in SUFFIXES:
        raise UserError(f"{out}: features are written as {' or '.join(SUFFIXES)}")
    if not out.absolute().parent.is_dir():
        raise UserError(f"{out}: its folder does not exist")
    if out.suffix == ".parquet":
        _parquet(out)


def write(file: pathlib.Path, parts: Sequence[Part], about: dict, work: pathlib.Path) -> None:
    """Write all parts into one file, whose kind its suffix tells; ``work`` is a folder for what is done meanwhile."""
    if file.suffix == ".npz":
        _write_npz(file, parts, about, work)
    else:
        _write_parquet(file, parts, about)


def read_about(file: pathlib.Path) -> dict[str, Any]:
    """What a file of features says about itself.

    Raises:
      UserError: it was not written here, or is damaged.
    """
    with foreign_bytes(file):
        if file.suffix == ".npz":
            with np.load(file, allow_pickle=False) as arrays:
                text = str(arrays["about"]) if "about" in arrays else None
        else:
            text = (_parquet(file).read_schema(file).metadata or {}).get(KEY.encode())
    if text is None:
        raise UserError(f"{file}: exists and was not made by embed; give another --out")
    return json.loads(text)


def _chunks(parts):
    for part in parts:
        for begin in range(0, len(part.rows), ROWS_AT_ONCE):
            yield part, part.rows[begin : begin + ROWS_AT_ONCE]


def _write_npz(file, parts, about, work):
    kind, count = parts[0].rows.dtype, sum(len(part.rows) for part in parts)
    names = {
        "recording": [part.recording for part in parts],
        "subject": [part.subject or "" for part in parts],
    }
    if "channel" in kind.names:
        names["channel"] = [name for part in parts for name in part.channels]
        names["electrode"] = [name for part in parts for name in part.electrodes]
    types = {name: np.dtype(f"<U{max(map(len, values))}" if any(values) else "<U1") for name, values in names.items()}
    arrays = {}
    for name in [*names, *(name for name in kind.names if name not in names)]:
        base, shape = (types[name], ()) if name in types else (kind[name].base, kind[name].shape)
        # On disk until NumPy copies them into the file, a piece at a time.
        arrays[name] = np.lib.format.open_memmap(work / f"{name}.npy", "w+", base, (count, *shape))
    place = 0
    for part, rows in _chunks(parts):
        inside = slice(place, place := place + len(rows))
        for name, values in _columns(part, rows).items():
            arrays[name][inside] = values
    np.savez(file, about=np.array(json.dumps(about)), **arrays)


def _columns(part, rows):
    """Columns of a chunk, names in place of numbers."""
    columns = {name: rows[name] for name in rows.dtype.names}
    columns |= {"recording": part.recording, "subject": part.subject or ""}
    if "channel" in columns:
        numbers = columns["channel"]
        columns |= {"channel": np.array(part.channels)[numbers], "electrode": np.array(part.electrodes)[numbers]}
    return columns


def _write_parquet(file, parts, about):
    parquet = _parquet(file)
    import pyarrow as pa

    kind = parts[0].rows.dtype
    text = pa.dictionary(pa.int32(), pa.string())
    fields = [pa.field("recording", text), pa.field("subject", text)]
    for name in kind.names:
        item = pa.from_numpy_dtype(kind[name].base)
        listed = kind[name].shape
        fields.append(pa.field(name, text if name == "channel" else pa.list_(item, listed[0]) if listed else item))
        if name == "channel":
            fields.append(pa.field("electrode", text))
    schema = pa.schema(fields, {KEY: json.dumps(about)})
    with parquet.ParquetWriter(file, schema) as writer:
        for part, rows in _chunks(parts):
            columns = [_arrow(pa, field, part, rows) for field in schema]
            writer.write_table(pa.Table.from_arrays(columns, schema=schema))


def _arrow(pa, field, part, rows):
    """A column of a chunk as Arrow has it."""
    if field.name in ("recording", "subject"):
        value = part.recording if field.name == "recording" else part.subject
        numbers = pa.nulls(len(rows), pa.int32()) if value is None else pa.array(np.zeros(len(rows), np.int32))
        return pa.DictionaryArray.from_arrays(numbers, pa.array([value or ""], pa.string()))
    if field.name in ("channel", "electrode"):
        names = part.channels if field.name == "channel" else part.electrodes
        return pa.DictionaryArray.from_arrays(pa.array(rows["channel"]), pa.array(list(names), pa.string()))
    values = np.ascontiguousarray(rows[field.name])
    if values.ndim == 1:
        return pa.array(values)
    return pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[1])


def _parquet(file):
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise UserError(f"{file}: needs pyarrow: pip install pyarrow (or write a .npz file)") from error
    return pyarrow.parquet
