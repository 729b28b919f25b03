"""Texts of every kind become token blocks; what has no text is named."""

import json

import msgpack
import numpy as np
import pytest

from neurolm_jax import prepare
from neurolm_jax.data import text, vocabulary
from neurolm_jax.data.shards import open_shards
from neurolm_jax.errors import UserError

TEXTS = ["The alpha rhythm is seen over the occiput.", ("It goes when the eyes open. " * 3).strip()]


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "a.txt").write_text(TEXTS[0])
    (folder / "b.jsonl").write_text("".join(json.dumps({"text": t, "id": 1}) + "\n" for t in TEXTS))
    (folder / "d.py").write_text(f'"""{TEXTS[1]}"""\nx = 1\n')
    (folder / "e.rst").write_bytes(b"\xff\xfe")
    return folder


def test_documents_of_every_kind(folder):
    assert list(text.documents([folder])) == [TEXTS[0], *TEXTS, TEXTS[1]]


def test_blocks_are_the_texts_in_order(folder, tmp_path):
    document = (TEXTS[1] + "\n") * 4000
    (folder / "a.txt").write_text(document)
    prepare.prepare_text([folder / "a.txt"], tmp_path / "out")
    shards = open_shards(tmp_path / "out" / "train")
    found = np.concatenate([np.frombuffer(msgpack.unpackb(shards.source[i])["tokens"], "<u2") for i in range(3)])
    np.testing.assert_array_equal(found, vocabulary.encode(document)[: 3 * text.BLOCK])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.jsonl", b'{"text": "a"}\n{"txt": "b"}\n', "x.jsonl: line 2 has no field 'text'"),
        ("x.jsonl", b"{", "x.jsonl: line 1 is not JSON"),
    ],
)
def test_what_has_no_text_is_named(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        list(text.documents([tmp_path / name]))


@pytest.mark.slow  # and in need of requirements-extras.txt
def test_parquet(tmp_path):
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.table({"n": [1, 2], "text": TEXTS}), tmp_path / "x.parquet")
    assert list(text.documents([tmp_path])) == TEXTS
    pyarrow.parquet.write_table(pyarrow.table({"n": [1, 2]}), tmp_path / "x.parquet")
    with pytest.raises(UserError, match="has no column 'text', but n"):
        list(text.documents([tmp_path / "x.parquet"]))
    (tmp_path / "x.parquet").write_bytes(b"PAR1")
    with pytest.raises(UserError, match="x.parquet: not a parquet file"):
        list(text.documents([tmp_path / "x.parquet"]))
