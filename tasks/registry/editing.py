"""Adding blocks to models.toml and taking them out; every other byte stays as a person wrote it."""

import json
import os
import re
import tempfile
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tasks.errors import ConfigurationError, NotFound
from tasks.registry.reader import Reader
from tasks.registry.registry import Registry

HEADER = re.compile(r"\s*\[\[\s*model\s*\]\]")
KEY_OR_VALUE = re.compile(r"\s*[^\s#]")


def add_model(path: Path, block: Mapping[str, Any]) -> None:
    """Append a ``[[model]]`` of texts, booleans, numbers, lists and tables.

    Raises `ConfigurationError` where it is wrong.
    """
    text = _read(path) if path.exists() else ""
    end = "\r\n" if "\r\n" in text else "\n"
    lines = ["[[model]]", *(f"{key} = {_toml(value)}" for key, value in block.items())]
    if text:
        lines.insert(0, "")
    start = text if not text or text.endswith("\n") else text + end
    _write(path, start + "".join(line + end for line in lines))


def remove_model(path: Path, name: str) -> None:
    """Take the block of one model out, from its header to its last key. Raises `ConfigurationError` or `NotFound`."""
    names = Registry.load(path).names
    if name not in names:
        raise NotFound(f"{path} has no model {name!r}; it has {', '.join(names)}.", "models")
    if len(names) == 1:
        raise ConfigurationError(f"{path}: {name!r} is the only model; add another before you remove it.")
    text = _read(path)
    lines = text.splitlines(keepends=True)
    starts = [*(i for i, line in enumerate(lines) if HEADER.match(line)), len(lines)]
    left = tomllib.loads(text)["model"]
    at = [block["name"] for block in left].index(name)
    del left[at]
    # A text of several lines may look like a header: what is left is compared with what shall be left.
    if len(starts) != len(left) + 2:
        raise ConfigurationError(f"{path}: the block of {name!r} cannot be told apart; take it out by hand.")
    start, stop = starts[at], starts[at + 1]
    stop = 1 + max(i for i in range(start, stop) if KEY_OR_VALUE.match(lines[i]))
    if start and not lines[start - 1].strip():
        start -= 1
    elif stop < len(lines) and not lines[stop].strip():
        stop += 1
    made = "".join([*lines[:start], *lines[stop:]])
    if tomllib.loads(made).get("model") != left:
        raise ConfigurationError(f"{path}: the block of {name!r} cannot be told apart; take it out by hand.")
    _write(path, made)


def _read(path: Path) -> str:
    try:
        with path.open(encoding="utf-8", newline="") as file:  # ends of lines stay as they are
            return file.read()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path}: cannot be read ({error}). Give a file with --models.") from None


def _write(path: Path, text: str) -> None:
    """Put the whole file in place at once, if it is a good one."""
    try:
        Reader(path, text).read(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"{path}: would not be valid TOML: {error}. Mend the file first.") from None
    place = path.resolve()
    try:
        mode = place.stat().st_mode if place.exists() else 0o644
        with tempfile.NamedTemporaryFile("w", encoding="utf-8", newline="", dir=place.parent, delete=False) as file:
            file.write(text)
        os.chmod(file.name, mode & 0o777)
        os.replace(file.name, place)
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be written ({error.strerror}); check its folder's rights.") from None


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Mapping):
        return f"{{ {', '.join(f'{key} = {_toml(each)}' for key, each in value.items())} }}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_toml, value))}]"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")  # which JSON lets stand and TOML does not
