"""Whatever is wrong with a model's files ends in one line that names the model, the place and what to do."""

import json
import os
import random
import shutil
import struct
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, BertConfig, BertForSequenceClassification, T5Config

from tasks.errors import ModelError
from tests.loading.checkpoints import Reports, entry_for, save, write_gguf
from worker.backends.loading import open_backend

MANY_BYTES = 10**13


def edit_config(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8")) | changes
    path.write_text(json.dumps({key: value for key, value in config.items() if value is not None}), encoding="utf-8")


def cut(path: Path, share: float = 0.5) -> None:
    os.truncate(path, int(path.stat().st_size * share))


def scribble(path: Path) -> None:
    path.write_bytes(random.Random(1).randbytes(4096))


def without(folder: Path, *patterns: str) -> None:
    for pattern in patterns:
        for path in folder.glob(pattern):
            path.unlink()


def as_bin(folder: Path, state: Any = None) -> Path:
    tensors = load_file(folder / "model.safetensors")
    without(folder, "*.safetensors")
    torch.save(tensors if state is None else state, folder / "pytorch_model.bin")
    return folder / "pytorch_model.bin"


def drop_tensor(folder: Path, name: str) -> None:
    tensors = load_file(folder / "model.safetensors")
    del tensors[name]
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


def poison(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    tensors["model.norm.weight"].fill_(float("nan"))
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


def blow_up(folder: Path) -> None:
    """Make the weights as large as no machine's memory; the file's numbers are holes that take no disk."""
    header = {"huge": {"dtype": "F32", "shape": [MANY_BYTES // 4], "data_offsets": [0, MANY_BYTES]}}
    text = json.dumps(header).encode()
    path = folder / "model.safetensors"
    path.write_bytes(struct.pack("<Q", len(text)) + text)
    try:
        os.truncate(path, 8 + len(text) + MANY_BYTES)
    except OSError:
        pytest.skip("this file system takes no file of a petabyte")


def as_adapter(folder: Path) -> None:
    """Replace the model by an adapter that was made for it."""
    tuned = get_peft_model(AutoModelForCausalLM.from_pretrained(folder), LoraConfig(r=2, target_modules=["q_proj"]))
    shutil.rmtree(folder)
    tuned.save_pretrained(folder)


def as_other(folder: Path, config: Any) -> None:
    without(folder, "*.safetensors", "config.json")
    config.save_pretrained(folder)
    save_file({"x": torch.ones(2)}, folder / "model.safetensors", {"format": "pt"})


def as_classifier(folder: Path) -> None:
    without(folder, "*.safetensors", "config.json")
    config = BertConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, vocab_size=33)
    BertForSequenceClassification(config).save_pretrained(folder)


def gguf_in(folder: Path, spoil: Callable[[Path], None] | None = None, name: str = "tiny.gguf") -> None:
    shutil.rmtree(folder)
    folder.mkdir()
    write_gguf(folder / name)
    if spoil is not None:
        spoil(folder / name)


def foreign_gguf(folder: Path) -> None:
    writer = gguf.GGUFWriter(folder / "tiny.gguf", "qwertz")
    writer.add_block_count(1)
    writer.add_tensor("token_embd.weight", np.zeros((4, 32), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@dataclass(frozen=True)
class Case:
    """``said`` are texts that the line must have, beside the model's name."""

    name: str
    spoil: Callable[[Path], Any]
    said: tuple[str, ...]
    options: dict[str, Any] = field(default_factory=dict)
    shards: int = 1


CASES = [
    Case("vanished", shutil.rmtree, ("there is no", "correct the path")),
    Case("empty folder", lambda f: without(f, "*"), ("config.json", "correct the source")),
    Case("a file that is no model", lambda f: None, ("config.json", "is a file"), {"source": "{folder}/config.json"}),
    Case("garbage config", lambda f: scribble(f / "config.json"), ("config.json", "JSON", "again")),
    Case("config that is a list", lambda f: (f / "config.json").write_text("[1]"), ("config.json", "no JSON object")),
    Case("cut safetensors", lambda f: cut(f / "model.safetensors"), ("model.safetensors", "damaged", "again")),
    Case("cut header", lambda f: cut(f / "model.safetensors", 0.01), ("model.safetensors", "header", "again")),
    Case("garbage safetensors", lambda f: scribble(f / "model.safetensors"), ("model.safetensors", "damaged")),
    Case("cut bin", lambda f: cut(as_bin(f)), ("pytorch_model.bin", "damaged", "again")),
    Case("garbage bin", lambda f: scribble(as_bin(f)), ("cannot load", "again")),
    Case("bin with code", lambda f: as_bin(f, {"x": Reports()}), ("run code", "safetensors")),
    Case("no weights", lambda f: without(f, "*.safetensors"), ("no weights", "model.safetensors")),
    Case("a missing shard", lambda f: without(f, "model-00002*"), ("model-00002-of-", "again"), shards=3),
    Case("garbage index", lambda f: scribble(f / "model.safetensors.index.json"), ("index", "again"), shards=3),
    Case("no tokenizer", lambda f: without(f, "tokenizer*"), ("no tokenizer", "tokenizer.json", "copy")),
    Case("garbage tokenizer", lambda f: scribble(f / "tokenizer.json"), ("tokenizer", "again")),
    Case("unknown type", lambda f: edit_config(f, model_type="qwertz"), ("'qwertz'", "openai")),
    Case("no type", lambda f: edit_config(f, model_type=None), ("config.json", "model_type")),
    Case(
        "code that comes with it",
        lambda f: edit_config(f, model_type="own", auto_map={"AutoModelForCausalLM": "own.Own"}),
        ("trust_remote_code", "never run", "AutoModelForCausalLM"),
    ),
    Case("a classifier", as_classifier, ("BertForSequenceClassification", "does not continue a text")),
    Case("another kind of model", lambda f: as_other(f, T5Config()), ("'t5'", "causal language model")),
    Case("other shapes", lambda f: edit_config(f, intermediate_size=80), ("shape", "mlp", "[32, 48]", "[32, 80]")),
    Case(
        "a missing weight",
        lambda f: drop_tensor(f, "model.layers.1.mlp.up_proj.weight"),
        ("lacks 1 weight", "model.layers.1.mlp.up_proj.weight"),
    ),
    Case("numbers that are none", poison, ("NaN", "float32", "again")),
    Case("more layers than there are", lambda f: edit_config(f, num_hidden_layers=3), ("lacks 9 weights", "layers.2")),
    Case("too large", blow_up, ("10000.", "GB are free", "another machine")),
    Case("an adapter alone", as_adapter, ("adapter, not a model", "as source")),
    Case("an adapter that is not there", lambda f: None, ("there is no",), {"adapter": "{folder}/nowhere"}),
    Case("an adapter that is none", lambda f: None, ("adapter_config.json",), {"adapter": "{folder}"}),
    Case("no such device", lambda f: None, ("cuda:77", "'cpu'"), {"device": "cuda:77"}),
    Case("no chat template", lambda f: None, ("chat template", "remove it"), {"template": "chat"}),
    Case("GGUF without a choice", gguf_in, ('gguf_file = "tiny.gguf"',)),
    Case("GGUF not there", lambda f: None, ("there is no file", "other.gguf"), {"gguf_file": "other.gguf"}),
    Case("GGUF path not there", lambda f: None, ("there is no file",), {"source": "{folder}/no.gguf"}),
    Case("cut GGUF", lambda f: gguf_in(f, cut), ("tiny.gguf is damaged", "again"), {"gguf_file": "tiny.gguf"}),
    Case("garbage GGUF", lambda f: gguf_in(f, scribble), ("tiny.gguf is damaged",), {"gguf_file": "tiny.gguf"}),
    Case(
        "cut GGUF header",
        lambda f: gguf_in(f, lambda path: cut(path, 0.03)),
        ("tiny.gguf is damaged", "header"),
        {"gguf_file": "tiny.gguf"},
    ),
    Case("GGUF of an unknown model", foreign_gguf, ("qwertz", "llama.cpp's server"), {"gguf_file": "tiny.gguf"}),
    Case(
        "a part of a GGUF file",
        lambda f: gguf_in(f, name="a-00001-of-00002.gguf"),
        ("llama-gguf-split",),
        {"gguf_file": "a-00001-of-00002.gguf"},
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_what_is_wrong_is_said_in_one_line(case: Case, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    save(folder, shards=case.shards)
    case.spoil(folder)
    options = {key: value.format(folder=folder) for key, value in case.options.items()}
    entry = entry_for(**({"source": folder} | options))
    with pytest.raises(ModelError) as caught:
        open_backend(entry, Reports())
    message = caught.value.message
    print(message)
    assert message.startswith("tiny: ") and "\n" not in message and message.count("tiny: ") == 1
    for text in case.said:
        assert text in message
    assert len(message) < 600


def test_an_adapter_of_another_model_is_refused(tmp_path: Path) -> None:
    save(tmp_path / "base", "llama")
    save(tmp_path / "adapter", "qwen3")  # its heads are wider
    as_adapter(tmp_path / "adapter")
    with pytest.raises(
        ModelError, match=r"adapter .* cannot be merged .*size mismatch.*; use one that was made for it"
    ):
        open_backend(entry_for(tmp_path / "base", adapter=str(tmp_path / "adapter")), Reports())


def test_an_adapter_that_lacks_weights_is_refused(tmp_path: Path) -> None:
    save(tmp_path / "base")
    save(tmp_path / "adapter")
    as_adapter(tmp_path / "adapter")
    file = tmp_path / "adapter" / "adapter_model.safetensors"
    tensors = load_file(file)
    tensors.popitem()
    save_file(tensors, file, {"format": "pt"})
    with pytest.raises(ModelError, match="its file lacks weights"):
        open_backend(entry_for(tmp_path / "base", adapter=str(tmp_path / "adapter")), Reports())


def test_modelscope_without_its_package_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("modelscope", "modelscope.hub", "modelscope_hub", "modelscope_hub.compat"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ModelError, match="pip install modelscope"):
        open_backend(entry_for("modelscope:someone/something"), Reports())


def test_tied_weights_lack_nothing(tmp_path: Path) -> None:
    save(tmp_path, "qwen3")
    assert "lm_head.weight" not in load_file(tmp_path / "model.safetensors")
    open_backend(entry_for(tmp_path), Reports())
