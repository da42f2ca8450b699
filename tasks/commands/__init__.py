"""The command line, a file a group of commands."""

from tasks.commands import machine, models, processes, runs
from tasks.commands.group import main

__all__ = ["machine", "main", "models", "processes", "runs"]
