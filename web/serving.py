"""Settings of the server's processes, as gunicorn reads them: ``gunicorn --config python:web.serving``."""

import gc
from typing import Any


def post_worker_init(worker: Any) -> None:
    """What is loaded by now stays: where the collector walks it again and again, exports take half as long again."""
    gc.freeze()
