"""The command line, a file a group of commands."""

from tasks.commands import exporting, growing, machine, models, processes, runs
from tasks.commands.group import main

__all__ = ["exporting", "growing", "machine", "main", "models", "processes", "runs"]
