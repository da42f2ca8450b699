"""models.toml, checked: errors name file, line, key and remedy."""

import difflib
import re
from pathlib import Path
from typing import Any, NoReturn

from tasks.errors import ConfigurationError, InvalidInput
from tasks.registry.entry import ModelSpec
from tasks.sampling import check_settings

NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
DEVICE = re.compile(r"auto|cpu|cuda:\d+")
DTYPES = ("auto", "float32", "bfloat16", "float16")
LANGUAGES = ("zh", "en")


class Reader:
    """Turns a parsed document into specs and knows where in the file each key stands."""

    def __init__(self, path: Path, text: str):
        self.path = path
        self.lines = text.splitlines()
        self.block_starts = [i for i, line in enumerate(self.lines) if re.match(r"\s*\[\[\s*model\s*\]\]", line)]

    def read(self, document: dict[str, Any]) -> list[ModelSpec]:
        for key in document.keys() - {"model"}:
            self.fail(None, key, f"unknown key {key!r}; describe each model under [[model]]")
        blocks = document.get("model")
        if not isinstance(blocks, list) or not blocks:
            raise ConfigurationError(f"{self.path}: no model is defined; add a [[model]] with name and source.")
        specs: list[ModelSpec] = []
        for index, block in enumerate(blocks):
            spec = self.read_model(index, block)
            if spec.name in [other.name for other in specs]:
                self.fail(index, "name", f"a second model is named {spec.name!r}; names must differ")
            specs.append(spec)
        return specs

    def read_model(self, index: int, block: dict[str, Any]) -> ModelSpec:
        known = ModelSpec.__dataclass_fields__
        for key in block:
            if key not in known:
                near = difflib.get_close_matches(key, known, 1)
                hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known)}"
                self.fail(index, key, f"unknown key {key!r}; {hint}")
        values: dict[str, Any] = dict(block)
        values["name"] = self.matching(index, block, "name", NAME, "lower-case letters, digits, '.', '_' and '-'")
        values["source"] = self.source(index, block)
        if "device" in block:
            self.matching(index, block, "device", DEVICE, "'auto', 'cpu' or 'cuda:0'")
        if block.get("dtype", "auto") not in DTYPES:
            self.fail(index, "dtype", f"dtype must be one of {', '.join(DTYPES)}")
        self.whole(index, block, "slots", 1, 1024)
        self.whole(index, block, "max_context", 0, 1_048_576)
        for key in ("add_special_tokens", "deterministic"):
            if not isinstance(block.get(key, True), bool):
                self.fail(index, key, f"{key} must be true or false")
        deadline = block.get("deadline", 1)
        if isinstance(deadline, bool) or not isinstance(deadline, int | float) or not 0 < deadline <= 86_400:
            self.fail(index, "deadline", "deadline must be a number of seconds above 0, at most 86400")
        template = block.get("template", "{prompt}")
        if not isinstance(template, str) or template.count("{prompt}") != 1:
            self.fail(index, "template", "template must contain {prompt} exactly once")
        if not isinstance(block.get("revision", ""), str):
            self.fail(index, "revision", "revision must be a text: a branch, tag or commit")
        values["cores"] = self.core_numbers(index, block)
        try:
            values["decoding"] = check_settings(block.get("decoding", {}), "decoding")
        except InvalidInput as error:
            self.fail(index, ((error.field or "").split(".")[-1], "decoding"), error.message)
        for key in ("label", "description"):
            values[key] = self.texts(index, block, key)
        return ModelSpec(**values)

    def source(self, index: int, block: dict[str, Any]) -> str:
        source = block.get("source")
        if not isinstance(source, str) or not source:
            self.fail(index, "source", "source is missing: a folder beside this file, or a hub id such as owner/name")
        folder = (self.path.parent / source).resolve()
        if folder.is_dir():
            return str(folder)
        if source.startswith((".", "/")) or source.count("/") != 1:
            self.fail(index, "source", f"the folder {folder} does not exist; correct source or put the model there")
        return str(source)

    def matching(self, index: int, block: dict[str, Any], key: str, pattern: re.Pattern[str], wanted: str) -> str:
        value = block.get(key)
        if not isinstance(value, str) or not pattern.fullmatch(value):
            self.fail(index, key, f"{key} is {value!r}; use {wanted}")
        return str(value)

    def whole(self, index: int, block: dict[str, Any], key: str, low: int, high: int) -> None:
        value = block.get(key, low)
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            self.fail(index, key, f"{key} must be a whole number from {low} to {high}")

    def core_numbers(self, index: int, block: dict[str, Any]) -> tuple[int, ...]:
        cores = block.get("cores", [])
        if not isinstance(cores, list) or not all(type(core) is int and core >= 0 for core in cores):
            self.fail(index, "cores", "cores must be a list of core numbers such as [0, 1]")
        return tuple(cores)

    def texts(self, index: int, block: dict[str, Any], key: str) -> dict[str, str]:
        table = block.get(key, {})
        if not isinstance(table, dict) or not all(k in LANGUAGES and isinstance(v, str) for k, v in table.items()):
            self.fail(index, key, f'{key} must be a table such as {{ zh = "诗人", en = "Poet" }}')
        return {language: table.get(language, block["name"] if key == "label" else "") for language in LANGUAGES}

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
