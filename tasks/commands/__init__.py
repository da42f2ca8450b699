"""The command line, a file a group of commands."""

from tasks.commands import machine, processes, runs
from tasks.commands.group import main

__all__ = ["machine", "main", "processes", "runs"]
