"""What completions of a server are made with, as far as it can be told from outside."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from tasks.ledger.records import Environment


def environment_of(facts: Mapping[str, Any]) -> Environment:
    """Facts under their digest."""
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
    return Environment(digest[:16], dict(facts))
