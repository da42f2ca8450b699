"""A test case of promptfoo, and what keeps one from being taken over."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


class Untaken(Exception):
    """A part of a test or a prompt that is not taken over: why, and what to do; both are whole sentences."""

    def __init__(self, reason: str, remedy: str):
        super().__init__(reason)
        self.reason, self.remedy = reason, remedy


@dataclass(frozen=True)
class Case:
    """``variables`` fill the prompts, ``checks`` are the assertions, ``prefix`` and ``suffix`` stand around prompts."""

    line: int
    variables: Mapping[str, str]
    checks: tuple[Mapping[str, Any], ...] = ()
    description: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    prefix: str = ""
    suffix: str = ""
