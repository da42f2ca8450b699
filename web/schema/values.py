"""Numbers that come as text, in forms and addresses."""

import re
from typing import Any

from pydantic import BeforeValidator

NUMBER = re.compile(r"[+-]?\d{1,20}(\.\d{0,20})?([eE][+-]?\d{1,3})?", re.ASCII)


def number_of(text: Any) -> Any:
    """The number that a form or an address has as text; anything else as it is, for a schema to refuse."""
    if not isinstance(text, str) or not NUMBER.fullmatch(text.strip()):
        return text
    value = float(text)
    return int(text) if text.strip().lstrip("+-").isdecimal() else value


FromText = BeforeValidator(number_of)
