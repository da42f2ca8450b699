"""Models to measure: from a folder, or of a known shape with random weights."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    PreTrainedTokenizerFast,
    Qwen3Config,
)

from tasks.errors import ModelError
from worker.backends.device import choose_device
from worker.backends.weights import open_weights
from worker.bench.traffic import Load

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
FIRST_CHARACTER = 0x4E00
CHARACTERS = 20_000

SIZES: dict[str, Callable[[], Any]] = {
    "gpt2:102m": lambda: GPT2Config(vocab_size=21128, bos_token_id=None, eos_token_id=1),
    "gpt2:4m": lambda: GPT2Config(vocab_size=6000, n_embd=192, n_layer=6, n_head=6, bos_token_id=None, eos_token_id=1),
    "llama:135m": lambda: LlamaConfig(
        vocab_size=49152,
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=30,
        num_attention_heads=9,
        num_key_value_heads=3,
        tie_word_embeddings=True,
        eos_token_id=1,
    ),
    "qwen3:0.6b": lambda: Qwen3Config(
        vocab_size=151936,
        hidden_size=1024,
        intermediate_size=3072,
        num_hidden_layers=28,
        num_attention_heads=16,
        num_key_value_heads=8,
        head_dim=128,
        tie_word_embeddings=True,
        eos_token_id=1,
    ),
    "gpt_neox:160m": lambda: GPTNeoXConfig(
        vocab_size=50304, hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12
    ),
}


def open_model(load: Load) -> tuple[Any, Any]:
    """Model and tokenizer of the load's folder. Raises `ModelError` for a device or a folder that is not there."""
    device = choose_device(load.device)
    if not (Path(load.model) / "config.json").is_file():
        raise ModelError(f"{load.model} holds no model; give a folder as transformers saves it, with a config.json.")
    torch.set_num_threads(load.threads or torch.get_num_threads())
    model = open_weights(load.model, dtype=DTYPES[load.dtype], local_files_only=True)
    return model.to(device).eval(), AutoTokenizer.from_pretrained(load.model, local_files_only=True)


def save_random(name: str, dtype: str, folder: str) -> None:
    """Write a model of a shape in ``SIZES`` with random weights, the same at every call, and a tokenizer for it."""
    config = SIZES[name]()
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config, dtype=DTYPES[dtype]).save_pretrained(folder)
    word_tokenizer(config.vocab_size).save_pretrained(folder)


def word_tokenizer(size: int) -> PreTrainedTokenizerFast:
    """One token a word, of which there are ``size``."""
    words = ["[PAD]", "[EOS]"]
    words += [f"{chr(FIRST_CHARACTER + i % CHARACTERS)}{i // CHARACTERS or ''}" for i in range(size - 2)]
    made = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[PAD]"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made.decoder = decoders.WordPiece(cleanup=False)
    return PreTrainedTokenizerFast(tokenizer_object=made, pad_token="[PAD]", eos_token="[EOS]")
