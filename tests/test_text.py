"""Texts of every kind become token blocks; what has no text is named, and what is left out is counted."""

import collections
import json
import sys
import types

import msgpack
import numpy as np
import pytest

from neurolm_jax import prepare
from neurolm_jax.corpus import text as text_writer
from neurolm_jax.corpus.documents import documents
from neurolm_jax.data import text, vocabulary
from neurolm_jax.data.shards import open_shards, read_manifest
from neurolm_jax.data.shards import write as write_shards
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


def read(*inputs):
    """The texts, and what was left out."""
    skipped = collections.Counter()
    return list(documents(inputs, skipped)), dict(skipped)


def test_documents_of_every_kind(folder):
    assert read(folder) == ([TEXTS[0], *TEXTS, TEXTS[1]], {"not UTF-8": 1})


def test_blocks_are_the_texts_in_order(folder, tmp_path):
    document = (TEXTS[1] + "\n") * 4000
    (folder / "a.txt").write_text(document)
    prepare.prepare_text([folder / "a.txt"], tmp_path / "out")
    shards = open_shards(tmp_path / "out" / "train")
    found = np.concatenate([np.frombuffer(msgpack.unpackb(shards.source[i])["tokens"], "<u2") for i in range(3)])
    np.testing.assert_array_equal(found, vocabulary.encode(document)[: 3 * text.BLOCK])


def test_a_long_text_is_cut_where_no_token_is(monkeypatch):
    """The tokens are those of the whole, and each character is looked at once, however long it is."""
    rng = np.random.default_rng(0)
    words = ["alpha", "  two", "\n\n", " \n\t x", "it's", "1999", "…", "é", "\u2003wide", " ", "!?)", "\r\n"]
    text_of_words = "".join(rng.choice(words, 4000))
    monkeypatch.setattr(text_writer, "PIECE", 50)
    cut = list(text_writer.pieces(text_of_words))
    assert len(cut) > 100 and "".join(cut) == text_of_words
    assert sum(map(vocabulary.encode, cut), []) == vocabulary.encode(text_of_words)
    assert list(text_writer.pieces("x" * 200)) == ["x" * 200] and list(text_writer.pieces("")) == [""]
    lengths = []
    monkeypatch.setattr(text_writer.vocabulary, "encode", lambda piece: lengths.append(len(piece)) or [1] * len(piece))
    found = list(text_writer.blocks([("word " * 40000), "", "end"]))
    tokens = np.concatenate([np.frombuffer(msgpack.unpackb(data)["tokens"], "<u2") for data, _ in found])
    assert len(found) == 200_005 // text.BLOCK and max(lengths) < 60 and sum(lengths) == 200_003
    assert (tokens == 1).all()


@pytest.mark.parametrize("length", [1024, 1000, 5000, 8191, 1])
def test_every_token_is_read(tmp_path, length):
    """Also of folders of earlier versions: rows go over from record to record."""
    tokens = np.random.default_rng(0).integers(0, 50257, 3 * text.BLOCK)
    parts = tokens.reshape(3, -1).astype("<u2")
    records = [(msgpack.packb({"tokens": part.tobytes()}), {"tokens": text.BLOCK}) for part in parts]
    write_shards(tmp_path / "t", records, {"kind": "text"})
    rows = text.TextRows(open_shards(tmp_path / "t"), length, None)
    assert len(rows) == (3 * text.BLOCK - 1) // length
    numbers = range(len(rows)) if length > 1 else [0, 5, text.BLOCK - 1, text.BLOCK, len(rows) - 1]
    for i in numbers:
        np.testing.assert_array_equal(rows[i], tokens[i * length : (i + 1) * length + 1])
        record, token = divmod(i * length, text.BLOCK)
        assert rows.origins(i) == [f"{tmp_path / 't'}: record {record}, from token {token}"]
    mixed = text.TextRows(open_shards(tmp_path / "t"), length, 1)
    if length > 1:
        first = sorted(tuple(mixed[i]) for i in range(len(mixed)))
        assert first == sorted(tuple(rows[i]) for i in range(len(rows)))


def test_tests_of_python_code_are_left_out_and_texts_in_folders_of_that_name_are_not(tmp_path):
    for name in ("library/tests/test_x.py", "corpus/test/unit/test_y.py", "library/x.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f'"""{TEXTS[1]}"""\n')
    for name in ("library/tests/data/table.txt", "corpus/test/a.txt", "corpus/tests/b.md"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    found, skipped = read(tmp_path)
    assert found == ["corpus/test/a.txt", "corpus/tests/b.md", TEXTS[1]] and skipped == {"tests of Python code": 3}
    assert read(tmp_path / "library" / "tests") == (["library/tests/data/table.txt", TEXTS[1]], {})


def test_what_is_left_out_is_said_and_kept(folder, tmp_path, capsys):
    (folder / "a.txt").write_text((TEXTS[1] + "\n") * 4000)
    for name in ("f.txt", "site-packages/g.txt"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes("é".encode("latin-1"))
    (folder / "h.py").write_text("print 'of another version'\n")
    prepare.prepare_text([folder], tmp_path / "out")
    said = capsys.readouterr().out
    assert "left out 2 files: not UTF-8" in said and "left out 1 files: in site-packages" in said
    want = {"not UTF-8": 2, "in site-packages": 1, "not Python of this version": 1}
    for split in ("train", "validation"):
        assert read_manifest(tmp_path / "out" / split)["skipped"] == want


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.jsonl", b'{"text": "a"}\n{"txt": "b"}\n', "x.jsonl: line 2 has no field 'text'"),
        ("x.jsonl", b"{", "x.jsonl: line 1 is not JSON"),
        ("x.jsonl", b'{"text": "a"}\n{"text": "\xe9"}\n', "x.jsonl: line 2 is not JSON in UTF-8"),
        ("x.txt", "é".encode("latin-1"), "x.txt: is not UTF-8; convert it, or leave it out"),
        ("x", b"\xff\xfe", "x: is not UTF-8"),
        ("x.py", b"print 1", "x.py: is not Python of this version"),
    ],
)
def test_what_has_no_text_is_named(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        read(tmp_path / name)


def test_a_link_to_nothing_is_named(folder):
    (folder / "b.txt").symlink_to("not/fetched")
    with pytest.raises(UserError, match="b.txt: cannot be read .No such file or directory.; repair or remove it"):
        read(folder)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"text": "a"}, {"content": "b", "id": 1}], "hf:a/b: its rows have no field 'text', but content, id"),
        ([{"text": ["a"]}], "hf:a/b: the field 'text' of its rows is list, not text"),
        (OSError("no network"), "hf:a/b: cannot be loaded .no network."),
    ],
)
def test_data_sets_of_the_hub(monkeypatch, rows, message):
    def load_dataset(name, split, streaming):
        assert (name, split, streaming) == ("a/b", "train", True)
        yield from [{"text": TEXTS[0]}, {"text": None}]
        if isinstance(rows, Exception):
            raise rows
        yield from rows

    monkeypatch.setitem(sys.modules, "datasets", types.SimpleNamespace(load_dataset=load_dataset))
    found = documents(["hf:a/b"], collections.Counter())
    assert next(found) == TEXTS[0]
    with pytest.raises(UserError, match=message):
        list(found)


def test_texts_of_other_inputs_are_not_taken_for_what_is_asked(folder, tmp_path, monkeypatch, capsys):
    def run(*inputs):
        monkeypatch.setattr(sys, "argv", ["prepare", "text", *map(str, inputs), "--out", str(tmp_path / "out")])
        prepare.main()
        return capsys.readouterr().out

    assert "0 tokens of 1 documents" in run(folder / "a.txt")
    assert "already prepared" in run(folder / "a.txt")
    monkeypatch.chdir(folder)
    assert "already prepared" in run("a.txt")
    for other in ((folder,), ("a.txt", "b.jsonl")):
        with pytest.raises(UserError, match=f"prepared from {folder / 'a.txt'}; remove the folder"):
            run(*other)


@pytest.mark.slow  # and in need of requirements-extras.txt
def test_parquet(tmp_path):
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.table({"n": [1, 2], "text": TEXTS}), tmp_path / "x.parquet")
    assert read(tmp_path) == (TEXTS, {})
    pyarrow.parquet.write_table(pyarrow.table({"n": [1, 2]}), tmp_path / "x.parquet")
    with pytest.raises(UserError, match="has no column 'text', but n"):
        read(tmp_path / "x.parquet")
    pyarrow.parquet.write_table(pyarrow.table({"text": [1, 2]}), tmp_path / "x.parquet")
    with pytest.raises(UserError, match="the field 'text' of its rows is int, not text"):
        read(tmp_path / "x.parquet")
    (tmp_path / "x.parquet").write_bytes(b"PAR1")
    with pytest.raises(UserError, match="x.parquet: not a parquet file"):
        read(tmp_path / "x.parquet")
