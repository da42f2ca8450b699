"""OpenAI's interface under /v1: models, chat completions and completions, files, batches."""

from web.openai import answers, batches, errors, files, models
from web.openai.blueprint import blueprint

__all__ = ["answers", "batches", "blueprint", "errors", "files", "models"]
