"""Fetching open sets, from a server on this machine that behaves as badly as servers do."""

import dataclasses
import hashlib
import http.server
import io
import json
import re
import sys
import threading
import zipfile

import pytest
import requests

from neurolm_jax import download
from neurolm_jax.eeg.tasks import NAMES
from neurolm_jax.errors import JobError, UserError
from neurolm_jax.open_data import fetching, listing, registry, transfer

CONTENT = {f"S{i:03d}/S{i:03d}R04.edf": bytes([i, 255 - i]) * (40_000 + i) for i in range(1, 9)}


class Server(http.server.ThreadingHTTPServer):
    """Files with ranges; ``faults`` holds, by path, what goes wrong, once for each entry of a list, or always."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.faults, self.requests, self.lock = {}, {}, [], threading.Lock()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}"

    def fault(self, path):
        with self.lock:
            fault = self.faults.get(path)
            return (fault.pop(0) if fault else None) if isinstance(fault, list) else fault


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        wanted = self.headers.get("Range")
        self.server.requests.append((self.path, wanted))
        content, fault = self.server.files.get(self.path), self.server.fault(self.path)
        if content is None or fault == "gone":
            return self.answer(404, b"not here")
        if fault == "busy":
            return self.answer(503, b"busy")
        begin = int(re.fullmatch(r"bytes=(\d+)-", wanted)[1]) if wanted and fault != "no ranges" else 0
        if begin >= len(content) and begin:
            return self.answer(416, b"")
        body = content[begin:]
        if fault == "wrong bytes":
            body = body[:-1] + bytes([body[-1] ^ 1])
        length = {"promises more": len(body) + 1000, "promises less": len(body) // 2}.get(fault, len(body))
        if fault == "breaks off":
            body = body[: len(body) // 2]
        if fault == "says nothing":
            body = b""
        self.answer(206 if begin else 200, body[:length], length, f"bytes {begin}-{len(content) - 1}/{len(content)}")

    def answer(self, status, body, length=None, span=None):
        length = len(body) if length is None else length
        self.send_response(status)
        self.send_header("Content-Length", str(length))
        if status == 206:
            self.send_header("Content-Range", span)
        self.end_headers()
        self.wfile.write(body)
        if length > len(body):
            self.close_connection = True


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(transfer, "PAUSE", 0.001)
    with Server() as running:
        threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True).start()
        for path, content in CONTENT.items():
            running.files[f"/set/{path}"] = content
        publish(running)
        yield running
        running.shutdown()


def publish(server, contents=CONTENT):
    lines = [f"{hashlib.sha256(content).hexdigest()} {path}\n" for path, content in contents.items()]
    server.files["/set/SHA256SUMS.txt"] = ("".join(lines) + f"{'0' * 64} RECORDS\n").encode()


@pytest.fixture
def source(server):
    fields = {"list": f"{server.url}/set/SHA256SUMS.txt", "sha1": None}
    return dataclasses.replace(registry.find("eegmmidb"), **fields)


def files_in(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def fetched(out):
    return {path: content for path, content in files_in(out / "eegmmidb").items() if path != "files.txt"}


def asked(server, path):
    return [span for wanted, span in server.requests if wanted == f"/set/{path}"]


FIRST = "S001/S001R04.edf"


def test_a_set_is_fetched_checked_and_not_fetched_again(server, source, tmp_path, capsys):
    fetching.download([source], tmp_path, workers=3)
    assert fetched(tmp_path) == CONTENT
    told = capsys.readouterr().out
    assert told.index("ODC-By 1.0") < told.index("Schalk") < told.index("8 of 8 files")
    assert "sha256:" in (tmp_path / "eegmmidb" / "files.txt").read_text()
    server.requests.clear()
    fetching.download([source], tmp_path)
    assert [path for path, _ in server.requests] == ["/set/SHA256SUMS.txt"]
    (tmp_path / "eegmmidb" / FIRST).write_bytes(b"damaged since")
    fetching.download([source], tmp_path)
    assert fetched(tmp_path) == CONTENT and len(asked(server, FIRST)) == 1


@pytest.mark.parametrize("fault", ["breaks off", "promises more", "says nothing", "busy"])
def test_a_broken_connection_is_resumed(server, source, tmp_path, fault):
    server.faults[f"/set/{FIRST}"] = [fault, fault]
    fetching.download([source], tmp_path)
    assert fetched(tmp_path) == CONTENT
    spans = asked(server, FIRST)
    assert spans[0] is None
    if fault == "breaks off":
        half = len(CONTENT[FIRST]) // 2
        assert spans == [None, f"bytes={half}-", f"bytes={half + (len(CONTENT[FIRST]) - half) // 2}-"]


def test_a_server_that_knows_no_ranges_sends_the_file_anew(server, source, tmp_path):
    server.faults[f"/set/{FIRST}"] = ["breaks off", "no ranges"]
    fetching.download([source], tmp_path)
    assert fetched(tmp_path) == CONTENT and len(asked(server, FIRST)) == 2


def test_what_an_earlier_run_left_is_gone_on_with(server, source, tmp_path):
    server.faults[f"/set/{FIRST}"] = "says nothing"
    part = tmp_path / "eegmmidb" / f"{FIRST}.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(CONTENT[FIRST][:777])
    with pytest.raises(JobError, match=r"1 files failed: .*S001R04.edf: .*goes on from there") as error:
        fetching.download([source], tmp_path)
    assert "\n" not in str(error.value)
    # The others are there, and what there was of the first is kept.
    assert fetched(tmp_path) == {k: v for k, v in CONTENT.items() if k != FIRST} | {
        f"{FIRST}.part": CONTENT[FIRST][:777]
    }
    server.faults.clear()
    server.requests.clear()
    fetching.download([source], tmp_path)
    assert fetched(tmp_path) == CONTENT and asked(server, FIRST) == ["bytes=777-"]


@pytest.mark.parametrize("fault", ["wrong bytes", "promises less"])
def test_wrong_bytes_are_never_taken_for_the_file(server, source, tmp_path, fault):
    server.faults[f"/set/{FIRST}"] = fault
    with pytest.raises(JobError, match="its sha256 is not the published one, [0-9a-f]{64}; it was removed"):
        fetching.download([source], tmp_path)
    assert FIRST not in fetched(tmp_path) and f"{FIRST}.part" not in fetched(tmp_path)
    assert len(fetched(tmp_path)) == len(CONTENT) - 1
    assert len(asked(server, FIRST)) == 2  # once more from the beginning, and no oftener


def test_a_file_that_is_not_there_is_asked_for_once(server, source, tmp_path):
    server.faults[f"/set/{FIRST}"] = "gone"
    with pytest.raises(JobError, match="1 files failed: .*S001R04.edf: 404 Client Error"):
        fetching.download([source], tmp_path)
    assert len(fetched(tmp_path)) == len(CONTENT) - 1 and len(asked(server, FIRST)) == 1


def test_a_remnant_of_another_edition_is_fetched_anew(server, source, tmp_path):
    part = tmp_path / "eegmmidb" / f"{FIRST}.part"
    part.parent.mkdir(parents=True)
    for remnant in (b"x" * 500, b"x" * 10**6, CONTENT[FIRST]):  # of it, longer than it, and all of it
        part.write_bytes(remnant)
        (tmp_path / "eegmmidb" / FIRST).unlink(missing_ok=True)
        fetching.download([source], tmp_path)
        assert fetched(tmp_path) == CONTENT


def test_a_size_that_is_published_is_kept_to(server, tmp_path):
    """A server that promises less than there is: with a size, the rest is asked for."""
    content = CONTENT[FIRST]
    file = listing.RemoteFile(
        "x.edf", f"{server.url}/set/{FIRST}", len(content), {"md5": hashlib.md5(content).hexdigest()}
    )
    server.faults[f"/set/{FIRST}"] = ["promises less"]
    counts = []
    transfer.fetch(file, tmp_path / "x.edf", requests.Session(), counts.append, threading.Event())
    assert (tmp_path / "x.edf").read_bytes() == content and sum(counts) == len(content)
    assert asked(server, FIRST) == [None, f"bytes={len(content) // 2}-"]


def test_a_stop_keeps_what_came(server, tmp_path, monkeypatch):
    monkeypatch.setattr(transfer, "CHUNK", 1000)
    content, stop = CONTENT[FIRST], threading.Event()
    file = listing.RemoteFile("x.edf", f"{server.url}/set/{FIRST}", None, {})
    with pytest.raises(transfer.Stopped):
        transfer.fetch(file, tmp_path / "x.edf", requests.Session(), lambda count: stop.set(), stop)
    assert [p.name for p in tmp_path.iterdir()] == ["x.edf.part"]
    assert (tmp_path / "x.edf.part").read_bytes() == content[:1000]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "eegmmidb: its list of files cannot be had: 404"),
        (b"<html>sorry</html>", "is not a list of files"),
        (b"abc S001/S001R04.edf\n", "'abc' is no hash of 64"),
        (b"0" * 64 + b" README.txt\n", "has none of its files"),
    ],
)
def test_lists_that_are_none_are_refused(server, source, tmp_path, content, message):
    server.files["/set/SHA256SUMS.txt"] = content
    with pytest.raises(JobError, match=message):
        fetching.download([source], tmp_path)


def test_a_list_cannot_name_a_file_outside(server, source, tmp_path):
    source = dataclasses.replace(source, pattern=".*")
    for path in ("../../evil.edf", "/etc/evil.edf"):
        publish(server, {path: b"x"})
        with pytest.raises(JobError, match="names a file outside the set's folder"):
            fetching.download([source], tmp_path / "out")
    assert files_in(tmp_path) == {}


def test_figshare_names_that_occur_twice_get_their_id(server, source, tmp_path):
    entries = [
        {
            "id": number,
            "name": name,
            "size": len(CONTENT[path]),
            "computed_md5": hashlib.md5(CONTENT[path]).hexdigest(),
            "download_url": f"{server.url}/set/{path}",
        }
        for number, (path, name) in enumerate(
            zip(CONTENT, ["H S1 EC.edf", "H S2 EO.edf", "H S2 EO.edf", "H S3 TASK.edf"])
        )
    ]
    server.files["/set/SHA256SUMS.txt"] = json.dumps(entries).encode()
    pattern = registry.find("mdd").pattern
    fetching.download([dataclasses.replace(source, kind="figshare", pattern=pattern)], tmp_path)
    assert sorted(fetched(tmp_path)) == ["1_H S2 EO.edf", "2_H S2 EO.edf", "H S1 EC.edf"]


def archive(members):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as opened:
        for name, content in members.items():
            opened.writestr(name, content)
    return file.getvalue()


def zenodo(server, content):
    server.files["/set/EEGs_Guinea-Bissau.zip"] = content
    entry = {
        "key": "EEGs_Guinea-Bissau.zip",
        "size": len(content),
        "checksum": "md5:" + hashlib.md5(content).hexdigest(),
        "links": {"self": f"{server.url}/set/EEGs_Guinea-Bissau.zip"},
    }
    server.files["/set/SHA256SUMS.txt"] = json.dumps({"files": [entry, entry | {"key": "EEGs_Nigeria.zip"}]}).encode()


def test_archives_of_zenodo_are_unpacked(server, source, tmp_path):
    zenodo(server, archive({"EEGs_Guinea-Bissau/signal-1.csv.gz": b"12", "EEGs_Guinea-Bissau/signal-2.csv.gz": b"3"}))
    source = dataclasses.replace(source, kind="zenodo", pattern=registry.find("guinea_bissau").pattern)
    for _ in range(2):  # what is missing is unpacked again
        fetching.download([source], tmp_path)
        signals = {k: v for k, v in fetched(tmp_path).items() if not k.endswith(".zip")}
        assert signals == {"EEGs_Guinea-Bissau/signal-1.csv.gz": b"12", "EEGs_Guinea-Bissau/signal-2.csv.gz": b"3"}
        (tmp_path / "eegmmidb" / "EEGs_Guinea-Bissau" / "signal-1.csv.gz").unlink()
    for content, message in ((archive({"../evil": b"x"}), "outside"), (b"no archive", "cannot be unpacked")):
        zenodo(server, content)
        with pytest.raises(JobError, match=message):
            fetching.download([source], tmp_path / "b")
    assert not list(tmp_path.rglob("evil"))


def test_files_of_another_edition_are_told(server, source, tmp_path, monkeypatch, capsys):
    sums = {path.rpartition("/")[2]: hashlib.sha1(content).hexdigest() for path, content in CONTENT.items()}
    sums["S003R04.edf"] = "0" * 40
    monkeypatch.setattr(registry.OpenSet, "sha1_sums", lambda self: sums)
    fetching.download([dataclasses.replace(source, sha1="known.sha1")], tmp_path)
    assert (
        "1 files are of another edition than the one that known.sha1 lists, such as S003/S003R04.edf"
        in capsys.readouterr().out
    )
    assert fetched(tmp_path) == CONTENT


@pytest.fixture
def command(monkeypatch, capsys):
    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["download", *map(str, arguments)])
        download.main()
        return capsys.readouterr().out

    return run


def test_the_command_fetches_some_files_of_a_set(server, source, tmp_path, command, monkeypatch):
    monkeypatch.setitem(registry.open_sets(), "eegmmidb", source)
    assert "2 of 2 files" in command("eegmmidb", "eegmmidb_moved", "--out", tmp_path, "--only", "S00[12]/*")
    assert sorted(fetched(tmp_path)) == sorted(CONTENT)[:2]
    with pytest.raises(UserError, match="--only nothing: eegmmidb has no such file"):
        command("eegmmidb", "--out", tmp_path, "--only", "nothing")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "no set is named; --list prints"),
        (("tuab", "--out", "x"), "tuab: only Temple University Hospital may hand it out; ask at https://"),
        (("eegmat", "seed_iv", "--out", "x"), "seed_iv: only the BCMI laboratory .* ask at https://"),
        (("eegmatt", "--out", "x"), "'eegmatt' is no set that can be fetched: .*; did you mean eegmat?"),
        (("eegmat",), "--out DIR is missing"),
        (("eegmat", "--out", __file__), "is no folder"),
        (("eegmat", "--out", "x", "--workers", "0"), "--workers: want 1 to 32"),
    ],
)
def test_bad_usage_is_one_line(command, arguments, message):
    with pytest.raises(UserError, match=message):
        command(*arguments)


def test_the_registry_is_complete_and_lists_what_it_has(command):
    printed = command("--list")
    for name, entry in registry.open_sets().items():
        assert name in printed and entry.licence and entry.citation and entry.people > 0 and entry.bytes > 1e6
        assert entry.home.startswith("https://") and entry.list.startswith("https://")
        assert entry.licence in entry.terms() and entry.citation[0] in entry.terms()
        assert all(registry.find(task) is entry for task in entry.tasks) and set(entry.tasks) <= set(NAMES)
        re.compile(entry.pattern)
    sums = registry.find("sleep_edf").sha1_sums()
    # Two files a night: 153 of 78 people at home, 44 of 22 under telemetry.
    assert len(sums) == 2 * (153 + 44) and sum(name.startswith("SC4") for name in sums) == 306
    assert all(re.fullmatch("[0-9a-f]{40}", digest) for digest in sums.values())
