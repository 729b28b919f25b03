"""Damaged files of a corpus end as used or skipped, never as a crash."""

import struct

import numpy as np
import pytest
from small_corpora import noise, outcomes, write_edf

from neurolm_jax.corpus import build
from neurolm_jax.data.shards import open_shards
from neurolm_jax.eeg.preprocessing import Preprocessing
from neurolm_jax.eeg.records import decode

LIES = {
    "channels": (252, b"9999"),
    "fewer": (252, b"1   "),
    "length": (236, b"99999999"),
    "no_length": (236, b"-1      "),
    "record": (244, b"1e9     "),
    "zero": (244, b"0       "),
    "header": (184, b"7       "),
    "date": (168, b"99.99.99"),
    "negative": (252, b"-4  "),
}


def mutated(data, rng):
    """Bytes of a damaged file."""
    data = bytearray(data)
    kind = rng.integers(6)
    if kind == 0:
        return bytes(data[: rng.integers(len(data))])
    if kind == 1:
        place, lie = LIES[rng.choice(list(LIES))]
        data[place : place + len(lie)] = lie
    elif kind == 2:
        for place in rng.integers(0, 256 * 5, 8):
            data[place] = rng.integers(256)
    elif kind == 3:
        start = rng.integers(len(data))
        data[start : start + 4000] = bytes(4000)
    elif kind == 4:
        return rng.bytes(int(rng.integers(1, 5000)))
    else:
        for place in rng.integers(256, 256 * 5, 3):
            data[place : place + 4] = struct.pack("<f", rng.standard_normal() * 1e30)
    return bytes(data)


@pytest.mark.slow
def test_damaged_files_end_as_used_or_skipped(tmp_path):
    good = write_edf(tmp_path / "good.edf", noise(0)).read_bytes()
    rng = np.random.default_rng(0)
    folder = tmp_path / "in"
    folder.mkdir()
    for i in range(200):
        (folder / f"{i:03d}.edf").write_bytes(mutated(good, rng))
    (folder / "empty.bdf").touch()
    (folder / "text.vhdr").write_text("Brain Vision Data Exchange Header File Version 1.0\n[Common Infos]\n")
    (folder / "matlab.set").write_bytes(b"MATLAB 5.0" + bytes(500))
    (folder / "some.mff").mkdir()
    manifest = build.build([folder], tmp_path / "out", Preprocessing(), "damaged")
    found = outcomes(manifest)
    assert len(found) == 204
    assert all(reason for name, reason in found.items() if not name.endswith("edf"))
    used = [r for r in manifest["recordings"] if r["outcome"] == "used"]
    assert used and sum(r["hours"] for r in used) == pytest.approx(sum(manifest["index"]["samples"]) / 200 / 3600)
    source = open_shards(tmp_path / "out").source
    for i in range(len(source)):
        assert np.isfinite(decode(source[i]).samples).all()
