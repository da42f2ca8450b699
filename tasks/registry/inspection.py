"""What a model's folder or GGUF file holds and what is wrong with it, found out in a moment and without torch."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from tasks.errors import ModelError
from tasks.registry.headers import Contents, read_bin, read_gguf, read_safetensors
from tasks.sampling import BOUNDS

PROCESS_BYTES = 400 * 2**20  # torch, transformers and the tokenizer
USUAL_TOKENS = 1024  # of a prompt and its completion
DEFAULT_CONTEXT = 2048  # of models that say none, such as recurrent ones
SAFETENSORS = re.compile(r"model(-\d+-of-\d+)?\.safetensors")
BIN = re.compile(r"pytorch_model(-\d+-of-\d+)?\.bin")
SAFETENSORS_INDEX, BIN_INDEX = "model.safetensors.index.json", "pytorch_model.bin.index.json"
SPLIT_GGUF = re.compile(r"-\d{5}-of-\d{5}\.gguf$")
TOKENIZER_FILES = (
    *("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model", "sentencepiece.bpe.model"),
    *("tekken.json", "vocab.bpe", "tokenizer.model.v3", "rwkv_vocab_v20230424.txt"),
)
CONTEXT_NAMES = (
    *("max_position_embeddings", "n_positions", "max_sequence_length", "n_ctx", "seq_length", "max_seq_len"),
    *("seq_len", "model_max_length", "max_seq_length"),
)
LAYER_NAMES = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
HEAD_NAMES = ("num_attention_heads", "n_head", "n_heads", "num_heads")
WIDTH_NAMES = ("hidden_size", "n_embd", "d_model")
# Heads of models that do not continue a text.
OTHER_HEADS = re.compile(
    r"For(MaskedLM|\w*Classification|QuestionAnswering|MultipleChoice|PreTraining|NextSentence\w*)$"
)
RECOMMENDED = ("temperature", "top_p", "top_k", "repetition_penalty")


class Format(StrEnum):
    SAFETENSORS = "safetensors"
    BIN = "pytorch_model.bin"
    GGUF = "gguf"


@dataclass(frozen=True)
class Inspection:
    """What a model is, as its files say.

    ``parameters`` is an estimate for `Format.BIN`; ``weights_bytes`` is what the files take. ``context`` in tokens is
    None where the model says none. ``cache_bytes`` is what one token takes in the cache of keys and values, a number
    of 2 bytes each; 0 for models that keep none. ``decoding`` are the settings that its makers recommend, where its
    files say any.
    """

    format: Format
    architecture: str
    parameters: int
    weights_bytes: int
    context: int | None
    chat_template: bool
    cache_bytes: int
    decoding: Mapping[str, float] = field(default_factory=dict)

    @property
    def size(self) -> str:
        """Parameters as people say them, such as 135M."""
        return f"{self.parameters / 1e9:.1f}B" if self.parameters >= 1e9 else f"{self.parameters / 1e6:.3g}M"

    def memory_needed(self, number_bytes: int, slots: int, context: int) -> int:
        """Bytes that a worker takes with numbers of ``number_bytes`` each, ``slots`` of them in use.

        The cache grows with what is in it, so each slot counts with at most `USUAL_TOKENS`, not the whole context.
        """
        cache = self.cache_bytes * number_bytes // 2 * slots * min(context, USUAL_TOKENS)
        return PROCESS_BYTES + self.parameters * number_bytes + cache


def inspect(place: Path, gguf_file: str | None = None) -> Inspection:
    """Look at a folder or a GGUF file. Raises `ModelError` that says what is missing or damaged."""
    if gguf_file is not None:
        place = place / gguf_file
    if place.suffix == ".gguf":
        if not place.is_file():
            raise ModelError(f"there is no file {place}; correct the source, or gguf_file.")
        return _inspect_gguf(place)
    if not place.is_dir():
        hint = "a file that is no .gguf" if place.exists() else "not there"
        raise ModelError(f"{place} is {hint}; source must be a model's folder, a .gguf file or a hub id.")
    return _inspect_folder(place)


def _inspect_folder(folder: Path) -> Inspection:
    config = read_config(folder)
    _check_head(folder, config)
    form, files = weight_files(folder)
    read = read_safetensors if form is Format.SAFETENSORS else read_bin
    contents = [read(file) for file in files]
    if not any((folder / name).is_file() for name in TOKENIZER_FILES) and not list(folder.glob("*.tiktoken")):
        raise ModelError(
            f"{folder} has no tokenizer (no tokenizer.json, tokenizer.model, vocab.json or vocab.txt); copy the "
            "tokenizer's files there from the model that this one was made from."
        )
    parameters = sum(one.parameters for one in contents)
    if form is Format.BIN and str(config.get("torch_dtype") or config.get("dtype")).endswith("16"):
        parameters *= 2
    text = text_config(config)
    architectures = config.get("architectures") or [config.get("model_type") or "unknown"]
    return Inspection(
        format=form,
        architecture=str(architectures[0]),
        parameters=parameters,
        weights_bytes=sum(one.nbytes for one in contents),
        context=context_of(text),
        chat_template=_has_chat_template(folder),
        cache_bytes=cache_bytes(text),
        decoding=recommended(folder),
    )


def recommended(folder: Path) -> dict[str, float]:
    """Decoding settings of a folder's generation_config.json, where it samples; none where that cannot be read."""
    try:
        config = json.loads((folder / "generation_config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    if not isinstance(config, dict) or config.get("do_sample") is not True:
        return {}
    found = {name: config.get(name) for name in RECOMMENDED}
    return {
        name: value
        for name, value in found.items()
        if isinstance(value, int | float) and BOUNDS[name].low <= value <= BOUNDS[name].high
    }


def read_config(folder: Path) -> dict[str, Any]:
    """A folder's config.json. Raises `ModelError`."""
    path = folder / "config.json"
    if not path.is_file():
        raise ModelError(_no_config(folder))
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read as JSON ({error}); download or copy it again.") from None
    if not isinstance(config, dict):
        raise ModelError(f"{path} holds no JSON object; download or copy it again.")
    return config


def _no_config(folder: Path) -> str:
    if (folder / "adapter_config.json").is_file():
        return (
            f"{folder} holds an adapter, not a model; give the model that it was made for as source, and this folder "
            "as adapter."
        )
    found = sorted(path.name for path in folder.glob("*.gguf"))
    if found:
        return f"{folder} holds GGUF files; say which one, such as gguf_file = {json.dumps(found[0])}."
    return f"{folder} has no config.json, so it is no model's folder; correct the source, or copy the missing file."


def _check_head(folder: Path, config: Mapping[str, Any]) -> None:
    for name in config.get("architectures") or ():
        if OTHER_HEADS.search(str(name)):
            raise ModelError(
                f"{folder} holds a {name}, which does not continue a text; choose a model whose architecture ends in "
                "ForCausalLM or LMHeadModel."
            )


def weight_files(folder: Path) -> tuple[Format, list[Path]]:
    """The format and the files of a folder's weights. Raises `ModelError` where there are none or not all of them."""
    for form, pattern, index in ((Format.SAFETENSORS, SAFETENSORS, SAFETENSORS_INDEX), (Format.BIN, BIN, BIN_INDEX)):
        single = sorted(path for path in folder.iterdir() if pattern.fullmatch(path.name) and "-of-" not in path.name)
        if single:
            return form, single
        if (folder / index).is_file():
            return form, _shards(folder / index)
    others = sorted(path.name for path in folder.glob("*.gguf"))
    hint = f" It has {others[0]}: set gguf_file to that." if others else ""
    raise ModelError(
        f"{folder} has no weights: neither model.safetensors nor pytorch_model.bin, whole or in shards with their "
        f"index. Download or copy them again.{hint}"
    )


def _shards(index: Path) -> list[Path]:
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        raise ModelError(f"{index} is no index of shards; download or copy it again.") from None
    missing = [name for name in names if not (index.parent / name).is_file()]
    if missing:
        raise ModelError(
            f"{index.parent} lacks {len(missing)} of {len(names)} files of weights, such as {missing[0]}; download or "
            "copy them again."
        )
    return [index.parent / name for name in names]


def _has_chat_template(folder: Path) -> bool:
    if (folder / "chat_template.jinja").is_file() or (folder / "chat_template.json").is_file():
        return True
    try:
        settings = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(settings, dict) and bool(settings.get("chat_template"))


def text_config(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The part that describes the language model; models that also see or hear have one of its own."""
    inner = config.get("text_config")
    return inner if isinstance(inner, Mapping) else config


def context_of(config: Mapping[str, Any]) -> int | None:
    """Tokens that a model was built for, by whatever name its config has for them; None where it says none.

    Where rotary positions are stretched by a factor, some configs tell the length before that.
    """
    found = next((config[name] for name in CONTEXT_NAMES if _is_count(config.get(name))), None)
    scaling = config.get("rope_scaling") or config.get("rope_parameters")
    if found is None or not isinstance(scaling, Mapping):
        return found
    factor, before = scaling.get("factor"), scaling.get("original_max_position_embeddings")
    kind = scaling.get("rope_type") or scaling.get("type")
    if kind == "yarn" and isinstance(factor, int | float) and before == found:
        return int(found * factor)
    return int(found)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _first(config: Mapping[str, Any], names: tuple[str, ...]) -> int:
    return next((int(config[name]) for name in names if _is_count(config.get(name))), 0)


def cache_bytes(config: Mapping[str, Any]) -> int:
    """What one token takes in the cache of keys and values, by 2 bytes a number; 0 for a model without attention."""
    heads = _first(config, HEAD_NAMES)
    if not heads:
        return 0
    dim = _first(config, ("head_dim",)) or _first(config, WIDTH_NAMES) // heads
    shared = 1 if config.get("multi_query") is True else 0
    return 2 * 2 * _first(config, LAYER_NAMES) * (_first(config, ("num_key_value_heads",)) or shared or heads) * dim


def _inspect_gguf(path: Path) -> Inspection:
    if SPLIT_GGUF.search(path.name):
        raise ModelError(
            f"{path.name} is one part of several; join them with llama.cpp's 'llama-gguf-split --merge', and give the "
            "whole file."
        )
    contents = read_gguf(path)
    of = _Keys(contents)
    heads = of.number("attention.head_count")
    dim = of.number("attention.key_length") or (of.number("embedding_length") // heads if heads else 0)
    cache = 2 * 2 * of.number("block_count") * (of.number("attention.head_count_kv") or heads) * dim
    return Inspection(
        format=Format.GGUF,
        architecture=of.architecture,
        parameters=contents.parameters,
        weights_bytes=contents.nbytes,
        context=of.number("context_length") or None,
        chat_template=bool(contents.metadata.get("tokenizer.chat_template")),
        cache_bytes=cache,
    )


class _Keys:
    """Keys of a GGUF header, which begin with its architecture's name."""

    def __init__(self, contents: Contents):
        self.metadata = contents.metadata
        self.architecture = str(self.metadata.get("general.architecture", "unknown"))

    def number(self, key: str) -> int:
        """0 where there is none. Some models have one number a layer: the largest counts."""
        value = self.metadata.get(f"{self.architecture}.{key}", 0)
        values = value if isinstance(value, list) else [value]
        return max((int(each) for each in values if _is_count(each)), default=0)
