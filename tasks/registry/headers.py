"""What the beginnings of weight files say: safetensors, GGUF and PyTorch's own, read without torch.

Formats: https://huggingface.co/docs/safetensors and https://github.com/ggml-org/ggml/blob/master/docs/gguf.md.
"""

import json
import math
import struct
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from tasks.errors import ModelError

MOST_HEADER = 100_000_000  # bytes, as safetensors itself allows
GGUF_MAGIC = b"GGUF"
GGUF_VERSIONS = (2, 3)
MOST_DIMENSIONS = 4
KEPT_LENGTH = 64  # elements of an array that is kept; vocabularies are only counted
ARRAY, STRING = 9, 8
SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
# Elements and bytes of a block, by ggml's number of the type.
BLOCKS = {
    0: (1, 4),
    1: (1, 2),
    2: (32, 18),
    3: (32, 20),
    6: (32, 22),
    7: (32, 24),
    8: (32, 34),
    9: (32, 40),
    10: (256, 84),
    11: (256, 110),
    12: (256, 144),
    13: (256, 176),
    14: (256, 210),
    15: (256, 292),
    16: (256, 66),
    17: (256, 74),
    18: (256, 98),
    19: (256, 50),
    20: (32, 18),
    21: (256, 110),
    22: (256, 82),
    23: (256, 136),
    24: (1, 1),
    25: (1, 2),
    26: (1, 4),
    27: (1, 8),
    28: (1, 8),
    29: (256, 56),
    30: (1, 2),
    34: (256, 54),
    35: (256, 66),
    39: (32, 17),
    40: (64, 36),
    41: (128, 18),
}
DAMAGED = "{name} is damaged: {what}. Download or copy it again."


@dataclass(frozen=True)
class Contents:
    """Tensors of one or more files: how many numbers, and how many bytes they take there.

    ``dtype`` is the format of most bytes as the file calls it. ``metadata`` are the keys of a GGUF header; of its
    long arrays only the length is kept.
    """

    parameters: int
    nbytes: int
    dtype: str
    metadata: dict[str, Any] = field(default_factory=dict)


def read_safetensors(path: Path) -> Contents:
    """Raises `ModelError` for a file that is cut off or no safetensors file."""
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        if not 2 <= length <= MOST_HEADER:
            raise ModelError(DAMAGED.format(name=path.name, what="it does not begin as a safetensors file does"))
        header = file.read(length)
    if len(header) < length:
        what = f"its header of {length} bytes is cut off after {len(header)}"
        raise ModelError(DAMAGED.format(name=path.name, what=what))
    try:
        tensors = json.loads(header)
        tensors.pop("__metadata__", None)
        ends = [int(tensor["data_offsets"][1]) for tensor in tensors.values()]
        counts = [math.prod(tensor["shape"]) for tensor in tensors.values()]
        dtypes = [str(tensor["dtype"]) for tensor in tensors.values()]
    except (ValueError, KeyError, TypeError, IndexError, AttributeError):
        what = "its header is not that of a safetensors file"
        raise ModelError(DAMAGED.format(name=path.name, what=what)) from None
    nbytes = max(ends, default=0)
    if size != 8 + length + nbytes:
        what = f"it has {size} bytes of {8 + length + nbytes}"
        raise ModelError(DAMAGED.format(name=path.name, what=what))
    most = max(zip(counts, dtypes, strict=True), default=(0, ""))[1]
    return Contents(sum(counts), nbytes, most)


def read_bin(path: Path) -> Contents:
    """What a ``.bin`` file of PyTorch holds, its parameters counted as float32 numbers, which is the format of most.

    Raises `ModelError` for one that is cut off. Files of before 2020 are no archives; of these nothing is checked.
    """
    with path.open("rb") as file:
        is_archive = file.read(2) == b"PK"
    if path.stat().st_size == 0 or (is_archive and not zipfile.is_zipfile(path)):
        raise ModelError(DAMAGED.format(name=path.name, what="the end of the archive is missing"))
    nbytes = path.stat().st_size
    return Contents(nbytes // 4, nbytes, "")


def read_gguf(path: Path) -> Contents:
    """Raises `ModelError` for a file that is cut off or no GGUF file, or of a version that is not known."""
    with path.open("rb") as file:
        try:
            return _read_gguf(path, file)
        except (struct.error, ValueError, OverflowError):
            what = "its header is cut off or is not that of a GGUF file"
            raise ModelError(DAMAGED.format(name=path.name, what=what)) from None


def _read_gguf(path: Path, file: BinaryIO) -> Contents:
    size = path.stat().st_size
    if file.read(4) != GGUF_MAGIC:
        raise ModelError(DAMAGED.format(name=path.name, what="it does not begin as a GGUF file does"))
    version = _number(file, "I")
    if version not in GGUF_VERSIONS:
        raise ModelError(f"{path.name} is of GGUF version {version}; convert the model anew with today's llama.cpp.")
    tensors, keys = _number(file, "Q"), _number(file, "Q")
    if tensors + keys > size:
        raise ValueError("more keys than bytes")
    metadata = {}
    for _ in range(keys):
        key = _string(file)
        metadata[key] = _value(file, _number(file, "I"))
    parameters = end = 0
    sizes: dict[int, int] = {}
    for _ in range(tensors):
        _string(file)
        dimensions = _number(file, "I")
        if dimensions > MOST_DIMENSIONS:
            raise ValueError("too many dimensions")
        count = math.prod(_number(file, "Q") for _ in range(dimensions))
        kind, offset = _number(file, "I"), _number(file, "Q")
        block, width = BLOCKS.get(kind, (1, 0))
        parameters += count
        sizes[kind] = sizes.get(kind, 0) + count // block * width
        end = max(end, offset + count // block * width)
    alignment = int(metadata.get("general.alignment") or 32)
    start = math.ceil(file.tell() / alignment) * alignment
    if size < start + end:
        raise ModelError(DAMAGED.format(name=path.name, what=f"it has {size} bytes of {start + end}"))
    return Contents(
        parameters, sum(sizes.values()), f"ggml type {max(sizes, key=sizes.__getitem__, default=0)}", metadata
    )


def _number(file: BinaryIO, code: str) -> int:
    return int(struct.unpack(f"<{code}", file.read(struct.calcsize(code)))[0])


def _string(file: BinaryIO) -> str:
    length = _number(file, "Q")
    data = file.read(length) if length <= MOST_HEADER else b""
    if len(data) < length:
        raise ValueError("a text is cut off")
    return data.decode("utf-8", "replace")


def _value(file: BinaryIO, kind: int) -> Any:
    if kind == STRING:
        return _string(file)
    if kind != ARRAY:
        code = SCALARS.get(kind)
        if code is None:
            raise ValueError("an unknown kind of value")
        return struct.unpack(f"<{code}", file.read(struct.calcsize(code)))[0]
    inner, count = _number(file, "I"), _number(file, "Q")
    if inner in SCALARS:
        width = struct.calcsize(SCALARS[inner])
        data = file.read(width * count) if count <= MOST_HEADER else b""
        if len(data) < width * count:
            raise ValueError("an array is cut off")
        return list(struct.unpack(f"<{count}{SCALARS[inner]}", data)) if count <= KEPT_LENGTH else count
    kept: list[Any] = []
    for _ in range(count):
        value = _value(file, inner)
        if count <= KEPT_LENGTH:
            kept.append(value)
    return kept or count
