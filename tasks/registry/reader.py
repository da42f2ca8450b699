"""models.toml, checked: errors name file, line, key and remedy."""

import re
from pathlib import Path
from typing import Any, NoReturn

from pydantic import ValidationError

from tasks.errors import ConfigurationError, InvalidInput
from tasks.registry.entry import KINDS, ModelEntry, OpenAIModel
from tasks.schema import invalid


class Reader:
    """Turns a parsed document into entries and knows where in the file each key stands."""

    def __init__(self, path: Path, text: str):
        self.path = path
        self.lines = text.splitlines()
        self.block_starts = [i for i, line in enumerate(self.lines) if re.match(r"\s*\[\[\s*model\s*\]\]", line)]

    def read(self, document: dict[str, Any]) -> list[ModelEntry]:
        """Raises `ConfigurationError` for the first entry that is wrong."""
        for key in document.keys() - {"model"}:
            self.fail(None, key, f"unknown key {key!r}; describe each model under [[model]]")
        blocks = document.get("model")
        if not isinstance(blocks, list) or not blocks:
            raise ConfigurationError(f"{self.path}: no model is defined; add a [[model]] with name and source.")
        entries: list[ModelEntry] = []
        for index, block in enumerate(blocks):
            entry = self.read_model(index, block)
            if entry.name in [other.name for other in entries]:
                self.fail(index, "name", f"a second model is named {entry.name!r}; names must differ")
            entries.append(entry)
        return entries

    def read_model(self, index: int, block: dict[str, Any]) -> ModelEntry:
        backend = block.get("backend", "local")
        if backend not in KINDS:
            self.fail(index, "backend", f"backend must be one of {', '.join(KINDS)}")
        if "registry_folder" in block:
            self.fail(index, "registry_folder", "unknown key 'registry_folder'")
        try:
            entry = KINDS[backend].model_validate({**block, "backend": backend, "registry_folder": self.path.parent})
        except ValidationError as error:
            self.fail_for(index, invalid(error.errors()[0]))
        except InvalidInput as error:  # the decoding settings name their own fields
            self.fail_for(index, error)
        if isinstance(entry, OpenAIModel) and bool(entry.base_url) == bool(entry.serve):
            self.fail(
                index, ("base_url", "serve"), "give either base_url or serve: where the server is, or its command"
            )
        return entry

    def fail_for(self, index: int, error: InvalidInput) -> NoReturn:
        """Raise `ConfigurationError` for a field of the block."""
        path = (error.field or "").split(".")
        hint = " It is a folder, a .gguf file or a hub id such as owner/name." if error.field == "source" else ""
        self.fail(index, (path[-1], path[0]), f"{error.message}{hint}")

    def fail(self, index: int | None, keys: str | tuple[str, ...], problem: str) -> NoReturn:
        """Raise `ConfigurationError` for the model block ``index`` (None: what stands before the first).

        Its line is that of the first of ``keys`` that begins a line there, else the block's own.
        """
        bounds = [0, *self.block_starts] if index is None else [*self.block_starts[index:], len(self.lines)]
        start, stop = (*bounds, len(self.lines))[:2]
        patterns = [
            rf'\s*(\[+\s*(model\.)?)?"?{re.escape(key)}\b' for key in ([keys] if isinstance(keys, str) else keys)
        ]
        lines = (i for pattern in patterns for i in range(start, stop) if re.match(pattern, self.lines[i]))
        raise ConfigurationError(f"{self.path}:{next(lines, start) + 1}: {problem.rstrip('.')}.")
