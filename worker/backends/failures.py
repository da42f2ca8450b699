"""What a loader raised, in one line that a person can act on."""

import pickle

import torch
from safetensors import SafetensorError

from tasks.errors import TouchstoneError

PICKLED = (
    "its .bin file holds more than tensors, which could run code and is never read; use a checkpoint in safetensors, "
    "or convert this one where you trust it (load and save_pretrained)"
)
MEMORY = "memory ran out while it was loaded; use a smaller dtype, fewer slots, a smaller model or another machine"
DAMAGED = "its weights are damaged ({}); download or copy them again"
FORBIDDEN = ("Unsupported global", "not an allowed global", "Unsupported class")
CUT_OFF = (
    "PytorchStreamReader",
    "failed finding central directory",
    "Ran out of input",
    "unexpected EOF",
    "Weights only load failed",
)


def explain(error: BaseException) -> str:
    """One line without a full stop at its end."""
    said = first_line(error)
    chain = list(_chain(error))
    text = "\n".join(str(each) for each in chain)
    if isinstance(error, TouchstoneError):
        return error.message.strip().rstrip(".")
    if any(isinstance(each, MemoryError | torch.OutOfMemoryError) for each in chain) or "allocate memory" in text:
        return MEMORY
    if any(words in text for words in FORBIDDEN):
        return PICKLED
    if any(isinstance(each, SafetensorError | EOFError | pickle.UnpicklingError) for each in chain):
        return DAMAGED.format(said)
    if any(words in text for words in CUT_OFF):
        return DAMAGED.format(said)
    return f"{type(error).__name__}: {said}".strip().rstrip(".")


def first_line(error: BaseException) -> str:
    """What an error says, without what follows its first line; a heading counts with what it stands over."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return " ".join(lines[:2]) if lines[0].endswith(":") else lines[0]


def _chain(error: BaseException | None) -> list[BaseException]:
    """An error and those that it came from."""
    found: list[BaseException] = []
    while error is not None and error not in found:
        found.append(error)
        error = error.__cause__ or error.__context__
    return found
