"""Markdown in which other people's text is inert."""

import re
from collections.abc import Iterable, Sequence

# Every ASCII punctuation mark can be escaped with a backslash (CommonMark 0.31, section 2.4).
_ACTIVE = re.compile(r"([\\`*_{}\[\]()#+\-.!|~>^$:@/=\"'])")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
_SPACE = re.compile(r"\s+")


def inert(text: str, limit: int | None = None) -> str:
    """``text`` on one line as Markdown that shows it and does nothing else: no HTML, link, table cell or heading.

    ``limit`` cuts at that many characters and marks the cut with …. Control and direction-changing characters go.
    """
    plain = _SPACE.sub(" ", _CONTROL.sub(" ", text)).strip()
    if limit is not None and len(plain) > limit:
        plain = plain[:limit].rstrip() + "…"
    plain = plain.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _ACTIVE.sub(r"\\\1", plain)


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Lines of a pipe table; cells must be inert already. Raises ValueError where a row has another length."""
    lines = [_row(heads), _row(["---"] * len(heads))]
    for row in rows:
        if len(row) != len(heads):
            raise ValueError(f"a row of {len(row)} cells under {len(heads)} heads")
        lines.append(_row(row))
    return lines


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
