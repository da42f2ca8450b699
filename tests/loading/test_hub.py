"""Models of a hub: downloaded from where HF_ENDPOINT says, kept in HF_HOME, and what is said when neither helps."""

import importlib
import shutil
import socket
import time
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModelForCausalLM, BertTokenizer, GPT2Config, PreTrainedTokenizerFast

from tasks.errors import ModelError
from tasks.registry import Registry
from tasks.registry.entry import LocalModel
from tasks.registry.hub import HUB_SECONDS
from tasks.registry.hub import ask as ask_hub
from tasks.settings import ROOT
from tasks.states import LoadStage
from tests.engine.tiny import byte_tokenizer, expect
from tests.loading.checkpoints import Reports, ask, entry_for, opened, save, write_gguf
from tests.loading.hub import COMMIT, serving
from worker.backends import source
from worker.backends.loading import open_backend
from worker.backends.source import locate

REPO = "someone/tiny-llama"


@pytest.fixture(autouse=True)
def hub_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    return tmp_path / "home" / "hub"


@pytest.fixture
def closed_port() -> str:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{one.getsockname()[1]}"


def test_a_model_is_downloaded_once_and_then_needs_no_hub(
    tmp_path: Path, hub_home: Path, monkeypatch: pytest.MonkeyPatch, closed_port: str
) -> None:
    folder = save(tmp_path / "repo")
    (folder / "pytorch_model.bin").write_bytes(b"the same weights once more")
    (folder / "tf_model.h5").write_bytes(b"other weights")
    reports = Reports()
    with serving(folder, REPO, pause=0.3) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.address)
        entry, backend = opened(REPO, reports)
        assert ask(entry, backend, "abc")[1].text == expect("llama", "abc", 8)
        assert backend.description.facts["commit"] == COMMIT
        assert {"pytorch_model.bin", "tf_model.h5"}.isdisjoint(hub.sent) and "model.safetensors" in hub.sent
        shares = reports.shares(LoadStage.DOWNLOADING)
        assert shares == sorted(shares) and shares[0] == 0.0 and any(0 < share <= 1 for share in shares)
        again = Reports()
        assert locate(entry, again).folder.is_relative_to(hub_home) and not again.stages
        assert len(hub.sent) == len(set(hub.sent)), "nothing is downloaded twice"
    monkeypatch.setenv("HF_ENDPOINT", closed_port)
    started = time.monotonic()
    assert locate(entry, Reports()).commit == COMMIT
    assert time.monotonic() - started < 20
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert locate(entry, Reports()).commit == COMMIT


def test_only_the_gguf_file_that_is_asked_for_is_downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "repo").mkdir()
    file = write_gguf(tmp_path / "repo" / "tiny-Q8_0.gguf")
    shutil.copy(file, file.with_name("tiny-Q4_0.gguf"))
    with serving(file.parent, REPO) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.address)
        found = locate(entry_for(REPO, gguf_file=file.name), Reports())
        assert hub.sent == [file.name] and (found.folder / file.name).read_bytes() == file.read_bytes()
        with pytest.raises(ModelError, match=r"has nothing that is asked for.*tiny-Q4_0\.gguf"):
            locate(entry_for(REPO, gguf_file="other.gguf"), Reports())


def refused(**options: Any) -> str:
    started = time.monotonic()
    with pytest.raises(ModelError) as caught:
        open_backend(entry_for(**options), Reports())
    assert time.monotonic() - started < 20
    assert "\n" not in caught.value.message
    return caught.value.message


def test_a_hub_out_of_reach_is_said_at_once(
    monkeypatch: pytest.MonkeyPatch, closed_port: str, hub_home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", closed_port)
    message = refused(source=REPO)
    for text in (REPO, closed_port, str(hub_home), "HF_ENDPOINT", "HF_HUB_OFFLINE"):
        assert text in message
    assert not [record for record in caplog.records if record.levelname in ("WARNING", "ERROR")]


def test_a_hub_that_never_answers_is_waited_for_a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert HUB_SECONDS <= 10
    monkeypatch.setattr(source, "HUB_SECONDS", 2.0)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(8)
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        assert "HF_ENDPOINT" in refused(source=REPO)


def test_offline_with_nothing_cached_names_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert "HF_HUB_OFFLINE is set" in refused(source=REPO)


def test_what_the_hub_does_not_have_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(save(tmp_path / "repo"), REPO) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.address)
        assert "no revision 'v9'" in refused(source=REPO, revision="v9")
        message = refused(source="someone/else")
        assert "someone/else" in message and hub.address in message and "HF_TOKEN" in message


def test_a_model_can_be_looked_at_before_it_is_downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = save(tmp_path / "repo")
    with serving(folder, REPO) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.address)
        found = ask_hub(REPO, None, None)
        assert hub.sent == ["config.json"]
    assert (found.architecture, found.context, found.format) == ("LlamaForCausalLM", 64, "safetensors")
    assert found.weights_bytes == (folder / "model.safetensors").stat().st_size


def lay_out(cache: Path, repo: str, folder: Path) -> None:
    """Put a model's files where the hub's package keeps them."""
    place = cache / f"models--{repo.replace('/', '--')}"
    shutil.copytree(folder, place / "snapshots" / COMMIT)
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text(COMMIT, encoding="ascii")


def first_model(folder: Path, tokenizer: Any, bin_file: bool) -> None:
    """A random GPT-2 over a tokenizer, as one of the models that this project began with."""
    config = GPT2Config(vocab_size=len(tokenizer), n_embd=32, n_layer=2, n_head=2, n_positions=128)
    model = AutoModelForCausalLM.from_config(config)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    if bin_file:
        (folder / "model.safetensors").unlink()
        importlib.import_module("torch").save(model.state_dict(), folder / "pytorch_model.bin")


def characters_of_bert(folder: Path) -> Any:
    folder.mkdir()
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"春眠不觉晓处闻啼鸟夜来风雨声花落知多少"]
    (folder / "vocab.txt").write_text("\n".join(vocabulary), encoding="utf-8")
    return BertTokenizer.from_pretrained(folder)


def test_the_first_three_models_load_from_a_cache(
    tmp_path: Path, hub_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = {
        "IDEA-CCNL/Wenzhong-GPT2-110M": (byte_tokenizer(), False),
        "uer/gpt2-chinese-cluecorpussmall": (characters_of_bert(tmp_path / "vocabulary"), True),
        "distilbert/distilgpt2": (byte_tokenizer(), False),
    }
    for at, (repo, (tokenizer, bin_file)) in enumerate(made.items()):
        first_model(tmp_path / str(at), tokenizer, bin_file)
        lay_out(hub_home, repo, tmp_path / str(at))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    formats = []
    for entry in Registry.load(ROOT / "models.hub.toml").models.values():
        assert isinstance(entry, LocalModel)
        backend = open_backend(entry, Reports())
        shown, answer = ask(entry, backend, "春眠不觉晓", 16)
        assert answer.error is None and answer.text == shown and "\ufffd" not in shown
        assert answer.rendered is not None and answer.rendered.tokens
        formats.append(backend.description.facts["format"])
        if "chinese" in entry.name:
            assert len(answer.rendered.tokens) == 5, "neither [CLS] nor [SEP]"
            assert answer.output_tokens and " " not in answer.text, "its characters stand without spaces"
    assert formats == ["safetensors", "pytorch_model.bin", "safetensors"]


def test_a_model_of_modelscope_loads_from_its_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("modelscope_hub", reason="ModelScope's package is not installed: pip install modelscope")
    monkeypatch.setenv("MODELSCOPE_CACHE", str(tmp_path / "modelscope"))
    save(tmp_path / "modelscope" / "models" / "someone--tiny.llama" / "snapshots" / "master")
    entry, backend = opened("modelscope:someone/tiny.llama")
    assert ask(entry, backend, "abc")[1].text == expect("llama", "abc", 8)


def test_a_word_tokenizer_without_a_template_is_put_plain_text(tmp_path: Path) -> None:
    made = Tokenizer(models.WordLevel({"[UNK]": 0, "hello": 1, "world": 2}, "[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    first_model(tmp_path, PreTrainedTokenizerFast(tokenizer_object=made, unk_token="[UNK]"), False)
    entry, backend = opened(tmp_path)
    rendered = ask(entry, backend, "hello world")[1].rendered
    assert rendered is not None and rendered.tokens == (1, 2)
