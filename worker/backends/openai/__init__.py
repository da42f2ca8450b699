"""The backend of servers that speak OpenAI's interface, elsewhere or started by the worker; no torch."""

from worker.backends.openai.opening import open_backend

__all__ = ["open_backend"]
