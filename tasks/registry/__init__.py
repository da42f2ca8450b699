"""The model registry: which models there are, how each is run and how prompts are put to it (models.toml)."""

from tasks.registry.entry import LocalModel, ModelEntry, OpenAIModel, entry_of
from tasks.registry.registry import Registry

__all__ = ["LocalModel", "ModelEntry", "OpenAIModel", "Registry", "entry_of"]
