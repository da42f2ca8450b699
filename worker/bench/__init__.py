"""Benchmarks of the worker's parts, each a command of ``python -m worker.bench``; the last line is JSON."""
