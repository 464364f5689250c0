"""The same images far away: in fsspec's memory, and behind a web server of this machine."""

from __future__ import annotations

import functools
import re
import threading
from collections.abc import Callable, Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import fsspec
import pytest

from relabel_store.errors import ImageSourceError
from relabel_store.generate.batches import decoded_batches
from relabel_store.generate.teacher import TeacherInput
from relabel_store.images.places import LocalFile, RemoteFile
from relabel_store.images.recognise import open_images
from relabel_store.images.services import attempt
from relabel_store.images.source import ImageSource


def upload(local: str) -> str:
    """Copy what a location means into fsspec's memory; return its location there."""
    path = Path(local)
    root = path if path.is_dir() else path.parent
    fs = fsspec.filesystem("memory")
    fs.put(f"{root}/", "/bucket/", recursive=True)
    return "memory://bucket" + ("" if path.is_dir() else f"/{path.name}")


@pytest.fixture
def memory() -> Iterator[None]:
    fs = fsspec.filesystem("memory")
    fs.store.clear()
    yield
    fs.store.clear()


class RangeHandler(SimpleHTTPRequestHandler):
    """Serves files, and ranges of them, as any web server of data does."""

    has_ranges = True

    def log_message(self, *arguments: object) -> None:
        pass

    def do_GET(self) -> None:
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        path = Path(self.translate_path(self.path))
        if asked is None or not self.has_ranges or not path.is_file():
            super().do_GET()
            return
        data = path.read_bytes()
        first, last = int(asked[1]), min(int(asked[2] or len(data)), len(data) - 1)
        if first > last:
            self.send_error(416)
            return
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {first}-{last}/{len(data)}")
        self.send_header("Content-Length", str(last - first + 1))
        self.end_headers()
        self.wfile.write(data[first : last + 1])


class ClosedHandler(RangeHandler):
    """Lets nobody in."""

    def do_GET(self) -> None:
        self.send_error(403)

    do_HEAD = do_GET  # noqa: N815 - so it is called


class WholeHandler(RangeHandler):
    """Sends whole files, whatever is asked for."""

    has_ranges = False


@pytest.fixture
def serve() -> Iterator[Callable[..., str]]:
    """Serve a folder; return its URL."""
    servers = []

    def start(folder: Path, handler: type[RangeHandler] = RangeHandler) -> str:
        server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(handler, directory=str(folder)))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_address[1]}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def require_same(source: ImageSource, expected: ImageSource) -> None:
    assert list(source.sample_ids) == list(expected.sample_ids)
    assert list(source.class_names) == list(expected.class_names)
    for row in range(len(expected)):
        assert source.read(row) == expected.read(row)
        assert source.fingerprint(row) == source.fingerprint(row)


@pytest.mark.usefixtures("memory")
def test_every_kind_is_read_from_far_away(kind: str, packed: str, tree: Path):
    if kind == "list":
        upload(str(tree))
        lines = [f"{path.parent.name}/{path.name}" for path in sorted(tree.rglob("*.JPEG"))]
        fsspec.filesystem("memory").pipe_file("/bucket/list.csv", "\n".join(["path", *lines]).encode())
        source = open_images("memory://bucket/list.csv")
    else:
        source = open_images(upload(packed))
    assert source.kind == kind
    require_same(source, open_images(tree))


@pytest.mark.usefixtures("memory")
def test_a_remote_folder_is_read_as_a_local_one(tree: Path):
    source, folder = open_images(upload(str(tree))), open_images(tree)
    assert (source.kind, source.order, source.name) == (folder.kind, folder.order, "bucket")
    assert list(source.paths) == list(folder.paths)
    require_same(source, folder)


@pytest.mark.parametrize("name", ["tar", "tar-of-tars", "webdataset"])
def test_tars_are_read_from_a_web_server(
    name: str, pack: Callable[[str], str], tree: Path, serve: Callable[..., str]
):
    path = Path(pack(name))
    require_same(open_images(f"{serve(path.parent)}/{path.name}"), open_images(tree))


def test_parquet_files_are_read_from_a_web_server(
    pack: Callable[[str], str], tree: Path, serve: Callable[..., str]
):
    url = serve(Path(pack("parquet")))
    require_same(open_images(f"{url}/train-{{00000..00001}}-of-00002.parquet"), open_images(tree))


def test_lists_of_urls_are_read_from_a_web_server(tree: Path, tmp_path: Path, serve: Callable[..., str]):
    url = serve(tree)
    files = [f"{url}/{path.parent.name}/{path.name}" for path in sorted(tree.rglob("*.JPEG"))]
    (tmp_path / "list.csv").write_text("\n".join(["path", *files]))
    require_same(open_images(tmp_path / "list.csv"), open_images(tree))


@pytest.mark.parametrize("offset", [0, 512])
def test_a_server_that_has_no_ranges_is_named(
    pack: Callable[[str], str], serve: Callable[..., str], offset: int
):
    path = Path(pack("tar"))
    url = f"{serve(path.parent, WholeHandler)}/{path.name}"
    with pytest.raises(OSError, match="does not send parts of files; copy the file here"):
        RemoteFile(url).read_at(offset, 100)
    with pytest.raises(
        ImageSourceError, match=rf"{path.name}.*does not send parts of files; copy the file here"
    ):
        open_images(url)


def test_a_server_that_has_no_ranges_is_named_while_a_file_is_open(
    pack: Callable[[str], str], serve: Callable[..., str]
):
    path = Path(pack("tar"))
    with RemoteFile(f"{serve(path.parent, WholeHandler)}/{path.name}").open(512) as file:
        file.seek(2000)
        with pytest.raises(OSError, match="does not send parts of files; copy the file here"):
            file.read(10)


@pytest.mark.parametrize("workers", [0, 2])
def test_forked_decoders_read_from_far_away(
    pack: Callable[[str], str], serve: Callable[..., str], workers: int
):
    path = Path(pack("tar"))
    source = open_images(f"{serve(path.parent)}/{path.name}")
    source.read(0)  # a connection of the parent's, which a fork must not use
    rows = [range(5), range(5, 12)]
    batches = decoded_batches(source, TeacherInput((8, 8)), rows, workers=workers, pin_memory=False)
    assert [batch.is_good.all() for batch in batches] == [True, True]


def test_a_missing_file_is_named(serve: Callable[..., str], tmp_path: Path):
    with pytest.raises(ImageSourceError, match=r"/nothing\.tar': the server answers 404 File not found$"):
        open_images(f"{serve(tmp_path)}/nothing.tar")


def test_a_server_that_lets_nobody_in_is_named(serve: Callable[..., str], tmp_path: Path):
    with pytest.raises(ImageSourceError, match=r"x\.tar': the server answers 403 Forbidden$"):
        open_images(f"{serve(tmp_path, ClosedHandler)}/x.tar")
    with pytest.raises(PermissionError):
        RemoteFile(f"{serve(tmp_path, ClosedHandler)}/x.tar").stamp()


def test_a_server_that_is_not_there_may_be_there_later():
    with pytest.raises(OSError, match="ClientConnectorError: Cannot connect to host 127") as caught:
        RemoteFile("http://127.0.0.1:9/x.tar").stamp()
    assert not isinstance(caught.value, FileNotFoundError)  # which nobody would try again


@pytest.mark.usefixtures("memory")
def test_neighbours_are_read_ahead_and_others_are_not(monkeypatch: pytest.MonkeyPatch):
    fs = fsspec.filesystem("memory")
    data = bytes(range(256)) * 65_536  # 16 MiB
    fs.pipe_file("/bucket/x", data)
    file = RemoteFile("memory://bucket/x")
    asked: list[int] = []
    fetch = RemoteFile._fetch
    monkeypatch.setattr(
        RemoteFile, "_fetch", lambda self, offset, size: asked.append(size) or fetch(self, offset, size)
    )
    for offset in (1000, 10_000_000, 10_000_100, 10_000_200, 500):
        assert file.read_at(offset, 100) == data[offset : offset + 100]
    assert asked == [100, 100, 4 << 20, 100]


@pytest.mark.usefixtures("memory")
@pytest.mark.parametrize("is_remote", [True, False])
def test_a_file_that_ends_early_is_an_error(is_remote: bool, tmp_path: Path):
    fsspec.filesystem("memory").pipe_file("/bucket/x", b"12345")
    (tmp_path / "x").write_bytes(b"12345")
    file = RemoteFile("memory://bucket/x") if is_remote else LocalFile(tmp_path / "x")
    assert file.read_at(1, 4) == b"2345"
    with pytest.raises(OSError, match="expected 4; it was cut off"):
        file.read_at(2, 4)


class BrokenError(Exception):
    """What the client of a service raises."""


BrokenError.__module__ = "botocore.exceptions"


@pytest.mark.parametrize(
    ("raised", "kind", "message"),
    [
        (BrokenError("no route"), OSError, "BrokenError: no route"),
        (FileNotFoundError("b/x"), FileNotFoundError, "No such file or directory"),
        (FileNotFoundError("no such branch"), FileNotFoundError, "no such branch"),
        (PermissionError("Access Denied"), PermissionError, "Access Denied"),
        (OSError(), OSError, "Input/output error"),
        (TimeoutError(110, "timed out"), TimeoutError, "timed out"),
        (ZeroDivisionError("ours"), ZeroDivisionError, ""),
    ],
)
def test_what_a_client_raises_is_an_error_of_the_system(
    raised: Exception, kind: type[Exception], message: str
):
    def fail(fs: object, path: str) -> None:
        raise raised

    with pytest.raises(kind) as caught:
        attempt("memory://b/x", fail)
    assert not message or getattr(caught.value, "strerror", None) == message
