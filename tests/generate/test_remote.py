"""Builds into an S3 server on this machine."""

from __future__ import annotations

import base64
import hashlib
import http.server
import json
import threading
import time
import urllib.parse
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from relabel_store.generate.build import build as build_store
from relabel_store.generate.toy import ColourTeacher
from relabel_store.store.location import open_files
from relabel_store.store.reader import open_store
from relabel_store.testing import make_store

BUCKET = "bucket"
SECRET = "not-to-be-shown-anywhere"
TEACHER = "relabel_store.generate.toy:make_colour_teacher"


@pytest.fixture
def url(s3_folder: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of a store that is not there yet."""
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    return f"{s3_folder}/labels.zarr"


def files_of(location: str | Path) -> dict[str, bytes | None]:
    files = open_files(location)
    return dict(files.read_many(files.listing("", deep=True)))


@pytest.fixture
def build(program: Callable[..., Any], images: Path) -> Callable[..., Any]:
    def start(out: str | Path, *options: str) -> Any:
        command = ["-m", "relabel_store.cli", "build", "--teacher", TEACHER, "--images", images, "--out", out]
        command += ["--name", "made up", "--shard-rows", "2", "--workers", "0", "--device", "cpu"]
        return program(*command, *options)

    return start


def finish(process: Any) -> str:
    out, err = process.end()
    assert (process.returncode, err) == (0, ""), err
    return out


@pytest.fixture
def images(tmp_path: Path, paint: Callable[..., Path]) -> Path:
    """16 images, which make 8 parts."""
    return paint(tmp_path / "photos", 4)


@pytest.fixture
def undisturbed(tmp_path: Path, images: Path) -> dict[str, bytes | None]:
    """The files of a store that was built into a directory."""
    out = tmp_path / "undisturbed.zarr"
    build_store(ColourTeacher(), images, out, name="made up", shard_rows=2, workers=0, device="cpu")
    return files_of(out)


def wait_for_parts(url: str, number: int, process: Any) -> None:
    files = open_files(url)
    while process.returncode is None:
        if sum(name.endswith(".json") for name in files.listing("journal")) >= number:
            return
        time.sleep(0.01)


def test_a_store_built_into_an_object_store_is_the_one_built_into_a_directory(
    url: str,
    build: Callable[..., Any],
    undisturbed: dict[str, bytes | None],
    tmp_path: Path,
) -> None:
    assert finish(build(url)).startswith(f"{url}: complete, 16 images labelled")
    assert files_of(url) == undisturbed
    store = open_store(url)
    cached = store.materialize(tmp_path / "cache")
    assert (cached.digest, len(cached)) == (open_store(tmp_path / "undisturbed.zarr").digest, 16)
    assert (cached.read_rows(range(16)).values == store.read_rows(range(16)).values).all()


def test_a_build_that_is_killed_goes_on_where_it_was(
    url: str, build: Callable[..., Any], undisturbed: dict[str, bytes | None]
) -> None:
    for parts in (2, 5):
        process = build(url)
        wait_for_parts(url, parts, process)
        process.kill()
    assert not open_store(url).is_complete
    finish(build(url))
    assert files_of(url) == undisturbed


def test_two_builds_at_once_give_the_bytes_of_one(
    url: str, build: Callable[..., Any], undisturbed: dict[str, bytes | None]
) -> None:
    for process in [build(url), build(url)]:
        finish(process)
    assert files_of(url) == undisturbed


def test_of_two_different_builds_at_once_one_is_refused(
    url: str, build: Callable[..., Any], undisturbed: dict[str, bytes | None]
) -> None:
    processes = [build(url), build(url, "--top-k", "2")]
    ends = [(process.end()[1], process.returncode) for process in processes]
    assert sorted(status for _, status in ends) == [0, 3]
    store = open_store(url)
    assert store.is_complete
    assert (store.k == 5) == (ends[0][1] == 0)
    assert (files_of(url) == undisturbed) == (ends[0][1] == 0)


def test_shares_meet_in_an_object_store(
    url: str, build: Callable[..., Any], undisturbed: dict[str, bytes | None]
) -> None:
    for process in [build(url, "--share", f"{share}/2") for share in range(2)]:
        finish(process)
    assert files_of(url) == undisturbed


READ_IN_A_CHILD = """
import os, sys, relabel_store
store = relabel_store.open_store(sys.argv[1])
before = store[0]
store._held.clear()
store._chunks.clear()
child = os.fork()
if child == 0:
    os._exit(0 if (store[0].values == before.values).all() else 1)
print(os.waitpid(child, 0)[1])
"""


def test_a_store_opened_before_a_fork_is_read_after_it(url: str, program: Callable[..., Any]) -> None:
    make_store(url, np.random.default_rng(0))
    assert program("-c", READ_IN_A_CHILD, url).end() == ("0\n", "")


def fail(process: Any) -> str:
    out, err = process.end()
    assert (process.returncode, out) == (3, ""), err
    assert SECRET not in err
    return err


def test_a_bucket_that_is_not_there_is_named(url: str, build: Callable[..., Any]) -> None:
    wrong = url.replace(BUCKET, "no-such-bucket")
    assert "there is no such bucket" in fail(build(wrong))


def test_missing_credentials_are_said_to_be_missing(
    url: str, build: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    assert "your credentials (aws configure" in fail(build(url))


# Google's service, as far as a stand-in for its JSON API can show


class Google(http.server.BaseHTTPRequestHandler):
    """Objects in memory: upload, also only if absent; read, list and delete."""

    protocol_version = "HTTP/1.1"
    objects: ClassVar[dict[str, bytes]] = {}
    lock = threading.Lock()

    def log_message(self, *args: object) -> None:
        pass

    def answer(self, status: int, body: bytes | dict[str, object] = b"") -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/octet-stream")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def asked(self) -> tuple[str, dict[str, list[str]]]:
        url = urllib.parse.urlsplit(self.path)
        return urllib.parse.unquote(url.path.partition("/o/")[2]), urllib.parse.parse_qs(url.query)

    def describe(self, name: str) -> dict[str, object]:
        data = self.objects[name]
        digest = base64.b64encode(hashlib.md5(data).digest()).decode()
        return {"name": name, "bucket": BUCKET, "size": str(len(data)), "etag": digest, "md5Hash": digest}

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        _, described, content, _ = body.split(b"--==0==")
        name = json.loads(described.partition(b"\n\n")[2])["name"]
        with self.lock:
            if self.asked()[1].get("ifGenerationMatch") == ["0"] and name in self.objects:
                self.answer(412, {"error": {"code": 412, "message": "conditionNotMet"}})
                return
            self.objects[name] = content.partition(b"\n\n")[2][:-1]
        self.answer(200, self.describe(name))

    def do_GET(self) -> None:
        name, query = self.asked()
        if not name:
            self.answer(200, self.found_below(query.get("prefix", [""])[0], query.get("delimiter", [""])[0]))
        elif name not in self.objects:
            self.answer(404, {"error": {"code": 404, "message": "notFound"}})
        else:
            self.answer(200, self.objects[name] if query.get("alt") == ["media"] else self.describe(name))

    def found_below(self, prefix: str, delimiter: str) -> dict[str, object]:
        names = [name for name in sorted(self.objects) if name.startswith(prefix)]
        rests = [(name, name.removeprefix(prefix).partition(delimiter or "\0")) for name in names]
        folders = {prefix + rest[0] + rest[1] for _, rest in rests if rest[1]}
        return {
            "items": [self.describe(name) for name, rest in rests if not rest[1]],
            "prefixes": sorted(folders),
        }

    def do_DELETE(self) -> None:
        self.answer(404 if self.objects.pop(self.asked()[0], None) is None else 204)


def test_a_store_built_at_google_is_the_one_built_into_a_directory(
    build: Callable[..., Any],
    undisturbed: dict[str, bytes | None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("gcsfs")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Google) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setenv("FSSPEC_GS_TOKEN", "anon")
        # The client would ask over gRPC, which no stand-in speaks, what kind of bucket it is.
        monkeypatch.setenv("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
        for process in [build(f"gs://{BUCKET}/labels.zarr") for _ in range(2)]:
            finish(process)
        server.shutdown()
    assert {name.removeprefix("labels.zarr/"): data for name, data in Google.objects.items()} == undisturbed


@pytest.mark.slow
def test_a_server_that_is_not_there_is_given_up_after_a_while(
    url: str, build: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    assert "tried 8 times: run the same command again" in fail(build(url))
