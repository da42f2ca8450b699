"""The JSON API under /api, a file a noun."""

from web.api import files, growth, machine, results, runs
from web.api.blueprint import blueprint

__all__ = ["blueprint", "files", "growth", "machine", "results", "runs"]
