"""What tells that a file holds tests of promptfoo, from its beginning or its columns."""

import re
from collections.abc import Sequence

OWN = re.compile(r"__(expected\d*|prefix|suffix|description|metric|threshold|metadata:.+|config:.+|providerOutput)")
KEY = re.compile(rb"\A(?:\xef\xbb\xbf)?(?:\s*(?:#[^\n]*|---)?\n)*(?:[$\w]+:|-\s+(?:vars|description|assert|options):)")
TOP_KEY = rb"^(?:prompts|tests|defaultTest):[ \t]*(?:#.*|\[.*|['\"]?file:.*|\|-?)?\r?$"
IN_YAML = re.compile(TOP_KEY + rb"|^(?:- +| +)(?:vars|assert):", re.MULTILINE)
IN_JSON = re.compile(rb'"(?:tests|defaultTest)"\s*:|"vars"\s*:\s*\{')


def is_promptfoo(columns: Sequence[str]) -> bool:
    """Whether a table with these columns is one of promptfoo's tests."""
    return any(OWN.fullmatch(column.strip()) for column in columns)


def is_promptfoo_config(beginning: bytes) -> bool:
    """Whether a file that begins so is a configuration of promptfoo or a list of its tests."""
    if beginning.removeprefix(b"\xef\xbb\xbf").lstrip().startswith((b"{", b"[")):
        return bool(IN_JSON.search(beginning)) and b'"evalId"' not in beginning
    return bool(KEY.match(beginning) and IN_YAML.search(beginning))
