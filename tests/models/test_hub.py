"""Downloads from a hub on this machine: what is fetched, resumed, refused and said."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import huggingface_hub
import pytest

import omnidrop
from omnidrop.errors import ModelError
from omnidrop.models import hub as downloads
from omnidrop.models.loading import LoadOptions
from omnidrop.models.locations import cached, find, get_model, known_models
from omnidrop.models.unloaded import describe
from omnidrop_cli.main import run
from tests.loopback_hub import COMMITS, Hub, contents, running, wait_until
from tests.models.test_checking import speaking_apart

NAME = "Qwen/Qwen2.5-Omni-3B"
SHARD = "model-00002-of-00003.safetensors"


@pytest.fixture(scope="module")
def published(hub_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint whose talker and vocoder are in a file of their own."""
    folder = Path(shutil.copytree(hub_folder, tmp_path_factory.mktemp("hub") / "m"))
    speaking_apart(folder)
    return folder


@pytest.fixture
def hub(published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A hub that holds it, with an empty cache."""
    found = Hub(contents(published))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_HUB_DOWNLOAD_TIMEOUT", "1")
    monkeypatch.setattr(downloads, "PAUSE", 0.05)
    with running(found) as address:
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", address)
        found.address = address
        yield found


def refused(message: str, name: str = NAME) -> ModelError:
    with pytest.raises(ModelError, match=message) as error:
        get_model(name)
    assert error.value.hint
    return error.value


def test_what_is_not_used_is_not_fetched(hub):
    told = []
    found = get_model("3b", progress=lambda *what: told.append(what))
    assert found.name == NAME
    assert found.folder == cached(NAME)
    names = hub.names()
    assert sorted(names) == sorted(set(names))  # each once
    assert SHARD in names
    assert not {"model-00004-of-00004.safetensors", "modeling_evil.py", "pytorch_model.bin"} & {
        *names
    }
    for name in names:
        assert (found.folder / name).read_bytes() == hub.files[name]
    stage, done, total = told[-1]
    assert (stage, done) == (f"download {NAME}", total)


def test_nothing_is_fetched_twice(hub):
    get_model(NAME)
    hub.asked.clear()
    assert get_model(NAME).folder == find(NAME).folder == find(NAME, offline=True).folder
    assert [path for _, path, _ in hub.asked] == [f"/api/models/{NAME}"]


def test_the_hubs_own_library_finds_it(hub):
    from huggingface_hub import hf_hub_download

    folder = get_model(NAME).folder
    path = hf_hub_download(
        NAME, SHARD, cache_dir=folder.parents[2], local_files_only=True, revision="main"
    )
    assert Path(path) == folder / SHARD


def test_a_revision(hub):
    found = get_model(f"{NAME}@v2")
    assert found.folder.name == COMMITS["v2"]
    assert found.name == f"{NAME}@v2"
    assert find("3b@v2", offline=True).folder == found.folder
    assert find(f"{NAME}@{COMMITS['v2']}", offline=True).folder == found.folder
    assert cached(NAME) is None  # main is another revision
    assert describe(LoadOptions(model="3b@v2", device="cpu")).here
    with pytest.raises(ModelError, match="@main is not on this machine"):
        find(f"{NAME}@main", offline=True)
    refused("has no revision 'v9'", f"{NAME}@v9")


def test_a_file_goes_on_where_it_ended(hub):
    size = len(hub.files[SHARD])
    hub.stall[SHARD] = size // 2
    began = time.monotonic()
    refused("has sent nothing for 1 s")
    assert time.monotonic() - began < 10
    assert cached(NAME) is None
    hub.stall.clear()
    hub.asked.clear()
    folder = get_model(NAME).folder
    assert (folder / SHARD).read_bytes() == hub.files[SHARD]
    assert [r for _, path, r in hub.asked if path.endswith(SHARD)] == [f"bytes={size // 2}-"]


def test_a_connection_that_breaks_is_made_again(hub):
    size = len(hub.files[SHARD])
    hub.cut[SHARD] = size // 3
    folder = get_model(NAME).folder
    assert (folder / SHARD).read_bytes() == hub.files[SHARD]
    asked = [r for _, path, r in hub.asked if path.endswith(SHARD)]
    assert asked == [None, f"bytes={size // 3}-"]


def test_a_part_that_is_not_the_hubs_is_fetched_anew(hub):
    hub.stall[SHARD] = 1000
    refused("has sent nothing")
    hub.stall.clear()
    (part,) = downloads.home(NAME).rglob(f"*{downloads.PART}")
    part.write_bytes(b"z" * 1000)
    refused("did not arrive as it is on the hub")
    assert (get_model(NAME).folder / SHARD).read_bytes() == hub.files[SHARD]


def test_a_truncated_copy_is_fetched_anew(hub):
    folder = get_model(NAME).folder
    blob = (folder / SHARD).resolve()
    blob.write_bytes(blob.read_bytes()[:-100])
    assert cached(NAME) is None
    assert (get_model(NAME).folder / SHARD).read_bytes() == hub.files[SHARD]


@pytest.mark.parametrize(
    ("status", "code", "message"),
    [
        (401, "RepoNotFound", "no such model"),
        (404, "RepoNotFound", "no such model"),
        (403, "GatedRepo", "needs a permission"),
        (429, "", "too many requests"),
        (500, "", "answers 500"),
        (503, "", "answers 503"),
    ],
)
@pytest.mark.parametrize("where", [NAME, SHARD], ids=["list", "file"])
def test_refusals_have_their_own_words(hub, monkeypatch, status, code, message, where):
    monkeypatch.setattr(time, "sleep", lambda seconds: None)  # the library's pauses
    hub.status[where], hub.refusal = status, code
    refused(message)


def test_a_silent_hub(hub):
    hub.silent = True
    refused("has sent nothing for 1 s")


def test_no_hub(hub, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    refused("the hub cannot be reached")


def test_offline_by_the_hubs_variable(hub, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    refused("HF_HUB_OFFLINE is set")


def test_a_model_of_another_family_is_refused_before_its_weights(hub):
    config = json.loads(hub.files["config.json"])
    hub.files["config.json"] = json.dumps({**config, "model_type": "llama"}).encode()
    refused("This is a llama")
    assert sorted(hub.names()) == ["config.json", "model.safetensors.index.json"]


def test_a_full_disk(hub, monkeypatch):
    full = shutil.disk_usage("/")._replace(free=10)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: full)
    refused(r"needs 0\.0 GB more, and 0\.0 GB are free")


def test_a_cache_that_cannot_be_written(hub, tmp_path):
    (tmp_path / "cache").write_text("a file")
    refused("cannot be saved")


@pytest.mark.parametrize("name", ["demo", "", "a/b/c", "/", "@main", "3b@"])
def test_names_that_are_not_on_a_hub(hub, name):
    if name == "3b@":
        assert get_model(name).name.startswith(NAME)
        return
    refused("is not a name on the hub", name)


def test_all_agree_about_a_part(hub, capsys):
    from omnidrop_cli.commands.doctor_checks import _cache

    hub.stall[SHARD] = 1000
    refused("has sent nothing")
    model = next(model for model in known_models() if model.alias == "3b")
    assert (model.state, model.folder) == ("partly on this machine", None)
    with pytest.raises(ModelError, match=r"only partly on this machine .*--offline") as error:
        find("3b", offline=True)
    assert "omnidrop models get Qwen/Qwen2.5-Omni-3B" in str(error.value.hint)
    assert any("partly on this machine" in finding.value for finding in _cache())
    assert find(None).demo
    assert run(["models"]) == 0
    assert "partly on this machine" in capsys.readouterr().out
    assert not describe(LoadOptions(model="3b", device="cpu")).here


def test_the_command(hub, capsys):
    assert run(["models", "get", "3b"]) == 0
    out, err = capsys.readouterr()
    assert Path(out.strip()) == cached(NAME)
    assert len(err.splitlines()) == 1
    assert f"download {NAME}" in err
    assert run(["models", "get", "3b", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["name"] == NAME
    assert run(["models", "fetch", "3b"]) == 2
    assert run(["models", "get"]) == 2
    assert run(["models", "get", f"{NAME}@v9"]) == 4


def test_ask_downloads_what_it_needs(hub, capsys):
    assert find("3b").folder == cached(NAME)


@pytest.mark.slow
def test_ctrl_c_ends_a_download_within_two_seconds(hub, tmp_path):
    hub.stall[SHARD] = 1000
    environment = {
        **os.environ,
        "HF_ENDPOINT": hub.address,
        "HF_HUB_CACHE": str(tmp_path / "cache"),
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DOWNLOAD_TIMEOUT": "60",
        "PYTHONPATH": str(Path(omnidrop.__file__).parents[1]),
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "omnidrop_cli", "models", "get", "3b"],
        env=environment,
        stderr=subprocess.PIPE,
    )
    try:
        wait_until(lambda: SHARD in hub.names(), 100)
        time.sleep(0.5)
        began = time.monotonic()
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130
        assert time.monotonic() - began < 2
    finally:
        process.kill()
        process.communicate()


def test_in_a_library_a_stopped_download_ends_its_thread(hub, monkeypatch):
    hub.files[SHARD] += b"0" * 2**22

    def stop(stage: str, done: float, total: float | None) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        get_model(NAME, progress=stop)
    wait_until(lambda: not any(t.name == "omnidrop-hub" for t in threading.enumerate()))
