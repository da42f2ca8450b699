"""Names of files, and moments, as every system reads them."""

import re
from datetime import UTC, datetime

MAX_NAME = 50  # characters; of four bytes each, with an ending, they are as many as file systems take
UNSAFE = re.compile(r"[^\w.()+=,-]+")
FILE_ENDING = re.compile(
    r"\.(csv|tsv|txt|xlsx|jsonl?|ya?ml|parquet)$", re.IGNORECASE
)  # of a title that is a file's name
RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\.|$)", re.IGNORECASE)  # on Windows


def safe_name(text: str, otherwise: str) -> str:
    """``text`` as a file's name on any system, letters of every script kept; ``otherwise`` where nothing is left."""
    name = UNSAFE.sub("-", text)[:MAX_NAME].strip("-. ")
    return otherwise if not name else f"_{name}" if RESERVED.match(name) else name


def iso(seconds: float | None) -> str | None:
    """Seconds since 1970 as a moment in UTC, to the millisecond."""
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
