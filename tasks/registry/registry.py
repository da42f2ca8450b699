"""The models of one models.toml, in file order."""

import tomllib
from pathlib import Path

from tasks.errors import ConfigurationError, NotFound
from tasks.registry.entry import ModelEntry
from tasks.registry.reader import Reader


class Registry:
    """The models of one file, in file order."""

    def __init__(self, models: list[ModelEntry]):
        self.models = {model.name: model for model in models}

    @property
    def names(self) -> list[str]:
        return list(self.models)

    def get(self, name: str) -> ModelEntry:
        """Raises `NotFound` with the names that exist."""
        if name not in self.models:
            raise NotFound(f"There is no model {name!r}; the registry has {', '.join(self.names)}.", "models")
        return self.models[name]

    def choose(self, names: list[str] | None) -> list[str]:
        """The named models, each once and in the given order, or all of them for None or an empty list."""
        return list(dict.fromkeys(self.get(name).name for name in names or self.names))

    @classmethod
    def load(cls, path: Path) -> "Registry":
        """Read and validate ``path``; raises `ConfigurationError` that names file, line, key and remedy."""
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigurationError(f"{path}: cannot be read ({error}). Give a file with --models.") from None
        try:
            document = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise ConfigurationError(f"{path}: not valid TOML: {error}. Mend that line.") from None
        return cls(Reader(path, text).read(document))
