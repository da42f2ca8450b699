"""The real model that some tests of loading use."""

from tests.smollm2 import smollm2_gguf

__all__ = ["smollm2_gguf"]
