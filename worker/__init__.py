"""Runs models: the engine, and the process that joins it to Celery and the ledger."""

import os

from worker.engine import processor

processor.limit_libraries()

# Before anything imports transformers: no telemetry, and progress bars are no log.
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
