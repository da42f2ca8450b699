"""A real chat model, SmolLM2-135M-Instruct, from its GGUF file to answers."""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from gguf import GGUFReader
from gguf.quants import dequantize
from transformers import AutoModelForCausalLM, AutoTokenizer

from tasks.registry import LocalModel
from tests.loading.checkpoints import Reports, ask, entry_for
from worker.backends import gguf
from worker.backends.loading import open_backend
from worker.backends.local import LocalBackend

TOKENS = 6
PROMPTS = [
    "Hi",
    "What is 2 + 2?",
    "Name a colour.",
    "Write one word.",
    "Say hello in French.",
    "Who wrote Hamlet?",
    "Is water wet?",
    "List three fruits.",
    "What comes after Monday?",
    "Translate 'cat' into Spanish.",
    "你好！请介绍一下你自己。",
    "Give the capital of Japan in one word.",
    "Count from one to five.",
    "def add(a, b):\n    return",
    "Finish the line: Twinkle, twinkle, little",
    "Which is larger, the sun or the moon, and how do you know?",
    "  leading blanks and\n\nempty lines  ",
    "Summarize: " + "The quick brown fox jumps over the lazy dog. " * 3,
    "Résumé, naïve, façade: which language do these words come from?",
    "Repeat after me: " + "one two three " * 12,
]


@pytest.fixture(scope="module")
def converted() -> Iterator[Path]:
    """A cache of its own, with nothing in it at first: 540 MB that nobody wants to keep."""
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(gguf, "cache_folder", lambda: Path(folder))
        yield Path(folder)


@pytest.fixture(scope="module")
def opened(smollm2_gguf: Path, converted: Path) -> tuple[LocalModel, LocalBackend]:
    """The file as a worker loads it, in float32 and by its own chat template."""
    entry = entry_for(smollm2_gguf, name="smollm2", template=None, slots=8)
    return entry, open_backend(entry, Reports())


@pytest.fixture(scope="module")
def reference(opened: tuple[LocalModel, LocalBackend], converted: Path) -> tuple[Any, Any]:
    """Model and tokenizer as transformers reads what the file was converted to."""
    folder = next(path for path in converted.iterdir() if path.is_dir())
    return AutoModelForCausalLM.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)


def test_its_weights_are_those_of_the_file(smollm2_gguf: Path, reference: tuple[Any, Any]) -> None:
    weights = reference[0].state_dict()
    tensors = {tensor.name: tensor for tensor in GGUFReader(smollm2_gguf).tensors}
    names = {
        "token_embd": "embed_tokens",
        "blk.29.ffn_down": "layers.29.mlp.down_proj",
        "blk.3.attn_norm": "layers.3.input_layernorm",
    }
    for theirs, ours in names.items():
        tensor = tensors[f"{theirs}.weight"]
        expected = torch.tensor(dequantize(tensor.data, tensor.tensor_type))
        assert torch.equal(weights[f"model.{ours}.weight"], expected)


def test_it_knows_the_capital_of_france(opened: tuple[LocalModel, LocalBackend]) -> None:
    shown, answer = ask(*opened, "What is the capital of France?", 16)
    assert answer.text == shown == "The capital of France is Paris." and answer.finish_reason == "stop"
    assert answer.rendered is not None and (answer.rendered.text or "").startswith("<|im_start|>system\n")
    facts = opened[1].description.facts
    assert (facts["architecture"], facts["parameters"], facts["context"]) == ("llama", 134_515_008, 8192)
    assert (facts["format"], facts["chat_template"]) == ("gguf", True)


def test_its_greedy_tokens_are_those_of_generate(
    opened: tuple[LocalModel, LocalBackend], reference: tuple[Any, Any]
) -> None:
    model, tokenizer = reference
    for prompt in PROMPTS:
        shown, answer = ask(*opened, prompt, TOKENS)
        assert answer.rendered is not None and answer.rendered.tokens
        told = tokenizer.apply_chat_template([{"role": "user", "content": prompt}], add_generation_prompt=True)
        assert list(answer.rendered.tokens) == told["input_ids"]
        ids = torch.tensor([answer.rendered.tokens])
        out = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=TOKENS, do_sample=False)
        made = [token for token in out[0, ids.shape[1] :].tolist() if token != tokenizer.eos_token_id]
        assert answer.text == tokenizer.decode(made) == shown, prompt
        assert answer.output_tokens == len(made)
