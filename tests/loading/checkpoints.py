"""Tiny checkpoints of every format that is loaded, and a way to ask what was loaded."""

import json
import queue
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedTokenizerFast

from tasks.conversation import Message, Role
from tasks.registry import LocalModel
from tasks.sampling import Sampling
from tasks.states import LoadStage
from tests.engine.tiny import byte_tokenizer, character_tokenizer, reference_model
from worker.backends.loading import open_backend
from worker.backends.local import LocalBackend
from worker.backends.protocol import Answer, Event, Generation, Increment

CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
CONTEXT = 64


class Reports:
    """Keeps what is reported while something loads."""

    def __init__(self) -> None:
        self.stages: list[tuple[LoadStage, float | None]] = []

    def __call__(self, stage: LoadStage, share: float | None = None) -> None:
        self.stages.append((stage, share))

    def shares(self, stage: LoadStage) -> list[float]:
        return [share for each, share in self.stages if each is stage and share is not None]


def entry_for(source: Path | str, **options: Any) -> LocalModel:
    settings = {"name": "tiny", "dtype": "float32", "slots": 2, "device": "cpu", "template": "plain"}
    return LocalModel(source=str(source), **(settings | options))


def opened(source: Path | str, report: Any = None, **options: Any) -> tuple[LocalModel, LocalBackend]:
    entry = entry_for(source, **options)
    return entry, open_backend(entry, report or Reports())


def ask(entry: LocalModel, backend: LocalBackend, prompt: str, tokens: int = 8) -> tuple[str, Answer]:
    """The greedy answer, and its text as it came piece by piece."""
    events: queue.SimpleQueue[Event] = queue.SimpleQueue()
    sampling = Sampling(max_new_tokens=tokens, temperature=0.0)
    backend.submit(Generation("ask", (Message(Role.USER, prompt),), entry, sampling), events.put)
    shown = ""
    while True:
        event = events.get(timeout=120)
        if isinstance(event, Answer):
            return shown, event
        assert isinstance(event, Increment), event
        shown += event.text


def save(folder: Path, kind: str = "llama", *, bin_file: bool = False, shards: int = 1) -> Path:
    """A model of tests.engine.tiny with its tokenizer, as safetensors or as ``.bin``, in one file or several."""
    model = reference_model(kind)
    model.save_pretrained(folder, max_shard_size="10KB" if shards > 1 else "1GB")
    character_tokenizer().save_pretrained(folder)
    if bin_file:
        state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        for path in folder.glob("*.safetensors*"):
            path.unlink()
        _save_bin(folder, state, shards)
    return folder


def _save_bin(folder: Path, state: dict[str, torch.Tensor], shards: int) -> None:
    if shards == 1:
        torch.save(state, folder / "pytorch_model.bin")
        return
    names = list(state)
    weight_map = {}
    for at in range(shards):
        file = f"pytorch_model-{at + 1:05}-of-{shards:05}.bin"
        part = {name: state[name] for name in names[at::shards]}
        torch.save(part, folder / file)
        weight_map |= dict.fromkeys(part, file)
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index), encoding="utf-8")


def chat_tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE with ChatML's tokens; ``<end>`` ends a text."""
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=byte_tokenizer()._tokenizer, eos_token="<end>")
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def write_gguf(path: Path, quantized: bool = True) -> Path:
    """A random Llama of 2 layers as llama.cpp writes it, half of its weights in blocks of 8 bits, with a tokenizer."""
    torch.manual_seed(3)
    tokenizer = chat_tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=CONTEXT,
    )
    model = AutoModelForCausalLM.from_config(config)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(2)
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(32)
    writer.add_feed_forward_length(64)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_rope_dimension_count(8)
    writer.add_rope_freq_base(10_000.0)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_vocab_size(len(tokenizer))
    _write_tokenizer(writer, tokenizer)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, 2)
    for name, tensor in model.state_dict().items():
        made = tensor.float() * (4 if tensor.dim() > 1 else 1)
        if "q_proj" in name or "k_proj" in name:
            heads = 4 if "q_proj" in name else 2  # llama.cpp keeps the halves of a head interleaved
            made = made.reshape(heads, 2, -1, 32).transpose(1, 2).reshape(made.shape)
        target = names.get_name(name, try_suffixes=(".weight",))
        data = made.numpy().astype(np.float32)
        if quantized and made.dim() > 1:
            kind = gguf.GGMLQuantizationType.Q8_0
            writer.add_tensor(target, gguf.quants.quantize(data, kind), raw_dtype=kind)
        else:
            writer.add_tensor(target, data)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _write_tokenizer(writer: Any, tokenizer: PreTrainedTokenizerFast) -> None:
    vocabulary = sorted(tokenizer.get_vocab().items(), key=lambda pair: pair[1])
    special = set(tokenizer.all_special_tokens)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list([token for token, _ in vocabulary])
    writer.add_token_types([3 if token in special else 1 for token, _ in vocabulary])
    merges = json.loads(tokenizer._tokenizer.to_str())["model"]["merges"]
    writer.add_token_merges([merge if isinstance(merge, str) else " ".join(merge) for merge in merges])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(0)
    writer.add_chat_template(CHAT_TEMPLATE)


def one_word_model(folder: Path, says: str) -> None:
    """A Llama that says one token whatever it is asked, with a tokenizer that has a chat template."""
    tokenizer = chat_tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=CONTEXT,
        eos_token_id=None,
        bos_token_id=None,
    )
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(("o_proj.weight", "down_proj.weight")):
                parameter.zero_()  # each layer adds nothing, so that the embedding decides
        model.model.embed_tokens.weight.copy_(torch.ones(len(tokenizer), 32))
        model.lm_head.weight.zero_()
        model.lm_head.weight[tokenizer.convert_tokens_to_ids(says)] = 1.0
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
