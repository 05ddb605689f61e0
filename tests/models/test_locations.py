"""Finding models: names, aliases, the hub's cache, and incomplete or damaged folders."""

from __future__ import annotations

import json
import re
import shutil
import struct
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub.errors import GatedRepoError, OfflineModeIsEnabled, RepositoryNotFoundError

from omnidrop.errors import ModelError
from omnidrop.models import locations
from omnidrop.models.hub import explained
from omnidrop.models.locations import cached, find, inspect, known_models, weights

REPOSITORY = "Qwen/Qwen2.5-Omni-3B"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty hub cache."""
    folder = tmp_path / "hub"
    folder.mkdir()
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(folder))
    return folder


def put(hub: Path, folder: Path, repository: str = REPOSITORY) -> Path:
    """Copy a checkpoint into the layout of the hub's cache."""
    place = hub / ("models--" + repository.replace("/", "--"))
    (place / "refs").mkdir(parents=True)
    (place / "refs" / "main").write_text("a" * 40)
    return Path(shutil.copytree(folder, place / "snapshots" / ("a" * 40)))


@pytest.fixture
def demo(thinker_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(locations, "demo_folder", lambda: thinker_folder)
    return thinker_folder


def test_a_folder_is_a_model(hub_folder, monkeypatch):
    found = find(str(hub_folder))
    assert (found.name, found.folder, found.demo) == ("hub", hub_folder, False)
    assert found.family.name == "Qwen2.5-Omni"
    monkeypatch.chdir(hub_folder)
    assert find(".").name == "hub"


def test_the_demo_model(demo, hub_folder):
    assert find("demo").demo
    assert find("Demo").folder == demo
    assert find(str(demo)).demo
    assert not find(str(hub_folder)).demo


def test_without_a_name_a_cached_model_comes_before_the_demo(hub, demo, hub_folder):
    assert find(None).demo
    put(hub, hub_folder, "Qwen/Qwen2.5-Omni-7B")
    assert find(None).name == "Qwen/Qwen2.5-Omni-7B"
    put(hub, hub_folder)
    found = find(None)
    assert (found.name, found.demo) == (REPOSITORY, False)
    assert find("3B", offline=True).folder == found.folder


def test_an_incomplete_download_is_not_a_model(hub, hub_folder):
    assert cached(REPOSITORY) is None
    folder = put(hub, hub_folder)
    assert cached(REPOSITORY) == folder
    (folder / "model-00002-of-00003.safetensors").unlink()
    assert cached(REPOSITORY) is None
    with pytest.raises(ModelError, match=r"--offline.*omnidrop models get Qwen/Qwen2\.5-Omni-3B"):
        find("3b", offline=True)


def test_known_models_list_which_are_on_this_machine(hub, demo, hub_folder):
    put(hub, hub_folder)
    demo_model, small, large, *others = known_models()
    assert (demo_model.alias, demo_model.folder) == ("demo", str(demo))
    assert (small.alias, small.name, small.state) == ("3b", REPOSITORY, "on this machine")
    assert small.size
    assert small.size.endswith("MB")
    assert (large.alias, large.folder, large.size) == ("7b", None, None)
    assert others[0].alias == "qwen3-30b"


def test_the_demo_model_may_be_missing(monkeypatch, tmp_path):
    monkeypatch.setattr(locations, "demo_folder", lambda: tmp_path / "none")
    with pytest.raises(ModelError, match="missing from this installation"):
        find("demo")
    assert known_models()[0].folder is None


def test_the_demo_folder_is_in_the_package_or_next_to_it(tmp_path, monkeypatch):
    monkeypatch.setattr(locations, "__file__", str(tmp_path / "omnidrop" / "models" / "x.py"))
    assert locations.demo_folder() == tmp_path / "samples" / "demo-model"
    (tmp_path / "omnidrop" / "_demo").mkdir(parents=True)
    assert locations.demo_folder() == tmp_path / "omnidrop" / "_demo"


@pytest.mark.parametrize("name", ["", " ", "a\0b", "13b", "a/b/c", "../nothing", "Qwen/..?"])
def test_unknown_names_are_refused(name):
    with pytest.raises(ModelError, match=r"3b, 7b, qwen3-30b, .*demo"):
        find(name)


@pytest.mark.parametrize("name", ["~nobody-here/x", "x" * 5000, "/" + "x" * 300])
def test_names_that_the_system_rejects(name):
    with pytest.raises(ModelError):
        find(name)


def test_a_file_is_not_a_model(hub_folder):
    with pytest.raises(ModelError, match="this is a file"):
        find(str(hub_folder / "config.json"))


def bare(kind: type[Exception]) -> Exception:
    """An error of the hub library, without its HTTP response."""
    return kind.__new__(kind)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (bare(RepositoryNotFoundError), "no such model"),
        (bare(GatedRepoError), "needs a permission"),
        (bare(OfflineModeIsEnabled), "HF_HUB_OFFLINE"),
        (ConnectionError("x"), "cannot be reached"),
        (RuntimeError("x"), "cannot be reached"),
        (OSError(28, "No space left on device"), "cannot be saved: No space left"),
    ],
    ids=["unknown", "gated", "offline", "unreachable", "odd", "full"],
)
def test_errors_of_the_hub(error, message):
    found = explained("someone/their-model", None, error)
    assert re.search(message, str(found))
    assert found.hint


class TestDamage:
    """Every error about an incomplete or damaged model names the file."""

    @pytest.fixture
    def folder(self, hub_folder: Path, tmp_path: Path) -> Path:
        return Path(shutil.copytree(hub_folder, tmp_path / "m"))

    def wrong(self, folder: Path, name: str, message: str) -> None:
        with pytest.raises(ModelError, match=message) as caught:
            inspect(folder)
        assert Path(str(caught.value.path)).name == name
        assert caught.value.hint

    def change(self, folder: Path, **values: object) -> None:
        path = folder / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **values}))

    def test_undamaged(self, folder):
        assert inspect(folder)["model_type"] == "qwen2_5_omni"

    def test_no_config(self, folder):
        (folder / "config.json").unlink()
        self.wrong(folder, "config.json", "missing")

    @pytest.mark.parametrize("text", ["", "{", "[]", "\x00"])
    def test_config_that_is_not_json(self, folder, text):
        (folder / "config.json").write_text(text)
        self.wrong(folder, "config.json", "cannot be read|not a JSON object")

    def test_another_family(self, folder):
        self.change(folder, model_type="llama")
        self.wrong(folder, "config.json", r"llama; OmniDrop supports Qwen2\.5-Omni")
        self.change(folder, model_type=None)
        self.wrong(folder, "config.json", "unknown type")

    def test_config_with_a_missing_part(self, folder):
        self.change(folder, thinker_config={"text_config": {}})
        self.wrong(folder, "config.json", "no vision_config")

    def test_config_whose_thinker_is_not_an_object(self, folder):
        self.change(folder, thinker_config=[1])
        self.wrong(folder, "config.json", "no text_config")

    def test_already_quantised(self, folder):
        self.change(folder, quantization_config={"quant_method": "gptq"})
        self.wrong(folder, "config.json", "already quantised")

    def test_an_index_with_files_outside_the_folder(self, folder):
        index = {"weight_map": {"thinker.lm_head.weight": "../model-00001-of-00003.safetensors"}}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
        self.wrong(folder, "model.safetensors.index.json", "outside")

    def test_json_nested_too_deeply(self, folder):
        (folder / "config.json").write_text("[" * 100_000)
        self.wrong(folder, "config.json", "cannot be read")

    def test_a_shard_is_missing(self, folder):
        (folder / "model-00002-of-00003.safetensors").unlink()
        self.wrong(folder, "model-00002-of-00003.safetensors", "missing")

    def test_an_index_without_weights(self, folder):
        (folder / "model.safetensors.index.json").write_text('{"weight_map": {}}')
        self.wrong(folder, "model.safetensors.index.json", "lists no weights")

    def test_other_weight_formats(self, folder):
        (folder / "model.safetensors.index.json").unlink()
        self.wrong(folder, "model.safetensors", "missing")
        (folder / "pytorch_model.bin").write_bytes(b"x")
        self.wrong(folder, "model.safetensors", "no weights in safetensors")

    @pytest.mark.parametrize(
        "content",
        [
            b"",
            b"abc",
            struct.pack("<Q", 10**12),
            struct.pack("<Q", 2) + b"[]",
            struct.pack("<Q", 3) + b'{"a',
            struct.pack("<Q", 8) + b'{"a": 1}',
        ],
        ids=["empty", "short", "long header", "list", "no json", "no entry"],
    )
    def test_a_file_that_is_not_safetensors(self, folder, content):
        (folder / "model-00001-of-00003.safetensors").write_bytes(content)
        self.wrong(folder, "model-00001-of-00003.safetensors", "damaged or truncated")

    def test_a_truncated_file(self, folder):
        file = folder / "model-00003-of-00003.safetensors"
        file.write_bytes(file.read_bytes()[:-5])
        self.wrong(folder, file.name, "damaged or truncated")

    def test_a_file_without_read_permission(self, folder, monkeypatch):
        opened = Path.open

        def refuse(self, mode="r", *args, **settings):
            if mode == "rb":
                raise PermissionError
            return opened(self, mode, *args, **settings)

        monkeypatch.setattr(Path, "open", refuse)
        with pytest.raises(ModelError, match="no permission to read"):
            weights(folder)

    def test_no_tokenizer(self, folder):
        (folder / "tokenizer.json").unlink()
        inspect(folder)
        (folder / "merges.txt").unlink()
        self.wrong(folder, "tokenizer.json", "tokenizer is missing")
