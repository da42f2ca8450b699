"""The model registry: which models there are, how each is run and how prompts are put to it (models.toml)."""

from tasks.registry.entry import ModelSpec
from tasks.registry.registry import Registry

__all__ = ["ModelSpec", "Registry"]
