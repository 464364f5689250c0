from __future__ import annotations

import functools
import http.server
import os
import pickle
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import ClassVar

import pytest
import timm
import torch

from relabel_store.errors import WeightsError
from relabel_store.generate.aliases import Alias
from relabel_store.generate.load import load_teacher
from relabel_store.generate.precision import Precision
from relabel_store.generate.teacher import check_identity
from relabel_store.generate.teacher_options import TeacherOptions
from relabel_store.generate.weights import read_weights

SMALL = "test_efficientnet"  # a few thousand parameters; timm has it for tests
CPU = torch.device("cpu")
Save = Callable[..., Path]


@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".pt"])
def test_weights_come_from_a_local_file(save: Save, tmp_path: Path, suffix: str):
    path = save(tmp_path / f"w{suffix}")
    teacher = load_teacher(f"{SMALL}.r160_in1k", TeacherOptions(weights=path))
    assert teacher.facts.weights.origin == f"file w{suffix}"
    assert teacher.facts.architecture == SMALL
    assert teacher.facts.input.size == (160, 160)
    assert check_identity(teacher, CPU) < 1e-4


def test_equal_weights_have_equal_digests_whatever_file_they_came_in(save: Save, tmp_path: Path):
    files = [save(tmp_path / "a.safetensors"), save(tmp_path / "b.pth"), save(tmp_path / "c.pth", epoch=3)]
    teachers = [load_teacher(SMALL, TeacherOptions(weights=file)) for file in files]
    (digest,) = {teacher.facts.weights.digest for teacher in teachers}
    assert digest.startswith("sha256:")
    other = timm.create_model(SMALL, pretrained=False).state_dict()
    torch.save(other, tmp_path / "d.pth")
    assert load_teacher(SMALL, TeacherOptions(weights=tmp_path / "d.pth")).facts.weights.digest != digest


def test_weights_decide_what_the_teacher_says(save: Save, tmp_path: Path):
    path = save(tmp_path / "w.pth")
    model = timm.create_model(SMALL, pretrained=False)
    model.load_state_dict(torch.load(path, weights_only=True))
    images = torch.randn((1, 3, 160, 160), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = model.eval()(images)
    found = (
        load_teacher(SMALL, TeacherOptions(weights=path))
        .dense_logits(images, Precision.FP32)
        .mean(dim=(2, 3))
    )
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


class Boom:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.path),)


def test_code_in_a_weights_file_does_not_run(save: Save, tmp_path: Path):
    path = tmp_path / "w.pth"
    torch.save({"state_dict": Boom(tmp_path / "boom")}, path)
    with pytest.raises(WeightsError, match="without running code"):
        load_teacher(SMALL, TeacherOptions(weights=path))
    path.write_bytes(pickle.dumps(Boom(tmp_path / "boom"), protocol=2))
    with pytest.raises(WeightsError):
        load_teacher(SMALL, TeacherOptions(weights=path))
    assert not (tmp_path / "boom").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not a state dict"),
        (b"junk" * 100, "not a state dict"),
        (None, "no such file"),
    ],
    ids=["empty", "junk", "missing"],
)
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_file_that_holds_no_weights_is_refused(
    tmp_path: Path, content: bytes | None, message: str, suffix: str
):
    path = tmp_path / f"w{suffix}"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(WeightsError, match=message):
        load_teacher(SMALL, TeacherOptions(weights=path))


def test_weights_of_another_architecture_are_refused(save: Save, tmp_path: Path):
    path = save(tmp_path / "w.pth", architecture="test_resnet")
    with pytest.raises(WeightsError, match="could not be loaded"):
        load_teacher(SMALL, TeacherOptions(weights=path))


def test_a_model_of_the_hub_comes_with_its_own_weights(save: Save, tmp_path: Path):
    path = save(tmp_path / "w.pth")
    with pytest.raises(WeightsError, match="the hub has weights and configuration in one"):
        load_teacher("hf-hub:somebody/something", TeacherOptions(weights=path))


class SlowHandler(http.server.SimpleHTTPRequestHandler):
    """Serves a folder, so slowly that others ask for the same meanwhile, and counts."""

    asked: ClassVar[list[str]] = []

    def log_message(self, *arguments: object) -> None:
        pass

    def do_GET(self) -> None:
        self.asked.append(self.path)
        time.sleep(0.3)
        super().do_GET()


@pytest.fixture
def hosted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Alias]]:
    """Return an alias whose weights lie on a web server under a name; what is fetched is kept in a new folder."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(SlowHandler, "asked", [])
    (tmp_path / "web").mkdir()
    handler = functools.partial(SlowHandler, directory=str(tmp_path / "web"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield lambda name: Alias(
            "ours",
            SMALL,
            160,
            5,
            "exact",
            "a server",
            "mit",
            url=f"http://127.0.0.1:{server.server_port}/{name}",
        )
        server.shutdown()


def test_processes_of_a_machine_fetch_weights_once(
    hosted: Callable[[str], Alias], save: Save, tmp_path: Path
):
    expected = torch.load(save(tmp_path / "web" / "w.pth"), weights_only=True)
    alias = hosted("w.pth")
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda _: read_weights(SMALL, alias, None), range(3)))
    assert SlowHandler.asked == ["/w.pth"]
    for state, origin in found:
        assert origin == alias.url
        assert state is not None
        torch.testing.assert_close(state, expected)
    assert {path.name for path in (tmp_path / "torch").rglob("*.*")} == {"w.pth", ".w.pth.lock"}


def test_weights_that_a_server_has_not_are_an_error_that_names_it(hosted: Callable[[str], Alias]):
    with pytest.raises(WeightsError, match=r"/none\.pth.*404.*give it with --weights"):
        read_weights(SMALL, hosted("none.pth"), None)


def test_a_file_of_another_kind_is_refused(tmp_path: Path):
    with pytest.raises(WeightsError, match=r"\.safetensors, \.pth or \.pt"):
        load_teacher(SMALL, TeacherOptions(weights=tmp_path / "model.onnx"))


def test_a_list_of_tensors_is_no_state_dict(save: Save, tmp_path: Path):
    torch.save([torch.zeros(3)], tmp_path / "w.pth")
    with pytest.raises(WeightsError):
        load_teacher(SMALL, TeacherOptions(weights=tmp_path / "w.pth"))
