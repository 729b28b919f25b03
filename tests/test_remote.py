"""Shards in object storage: written there, and copied before they are read."""

import fsspec
import pytest

from neurolm_jax.data import remote, shards
from neurolm_jax.errors import UserError


@pytest.fixture
def url(tmp_path, monkeypatch):
    monkeypatch.setenv("NEUROLM_CACHE", str(tmp_path / "cache"))
    shards.write(tmp_path / "x", [(bytes([i]) * 9, {"n": i}) for i in range(5)], {"kind": "eeg", "split": "train"})
    remote.upload(tmp_path / "x", "memory://bucket/x")
    yield "memory://bucket/x"
    fsspec.filesystem("memory").rm("/bucket", recursive=True)


def test_shards_are_copied_once_and_that_is_said(url, capsys):
    opened = shards.open_shards(url)
    assert [opened.source[i] for i in range(5)] == [bytes([i]) * 9 for i in range(5)]
    assert "ArrayRecord reads no such address; copied to" in capsys.readouterr().out
    shards.open_shards(url)
    assert capsys.readouterr().out == ""


def test_manifests_are_found_and_come_last(url):
    [address] = remote.find("memory://bucket", "**/manifest.json")
    assert shards.open_shards(address.removesuffix("/manifest.json")).manifest["records"] == 5
    assert remote.find("memory://bucket/y", "manifest.json") == []


@pytest.mark.parametrize(
    ("address", "message"),
    [("memory://bucket/none", "memory://bucket/none"), ("nonsense://x/y", "nonsense"), ("memory://bucket", "no such")],
)
def test_bad_addresses_are_named(url, address, message):
    with pytest.raises(UserError, match=message):
        shards.open_shards(address)


def test_prepare_writes_to_an_address(url, tmp_path, monkeypatch, capsys):
    import sys

    from neurolm_jax import prepare

    (tmp_path / "a.txt").write_text("The alpha rhythm. " * 20_000)
    line = ["prepare", "text", str(tmp_path / "a.txt"), "--out", "memory://bucket/text"]
    for said in ("memory://bucket/text: copied there", "memory://bucket/text: already prepared"):
        monkeypatch.setattr(sys, "argv", line)
        prepare.main()
        assert said in capsys.readouterr().out
    assert shards.open_shards("memory://bucket/text/train").manifest["kind"] == "text"
    assert not list((tmp_path / "cache" / "staging").iterdir())
