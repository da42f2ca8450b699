"""Files of prompts, read as streams: what a file is and holds is guessed from its content, and shown before."""

from tasks.files.read.reader import preview, read
from tasks.files.read.reading import Preview, Problem, Reading

__all__ = ["Preview", "Problem", "Reading", "preview", "read"]
