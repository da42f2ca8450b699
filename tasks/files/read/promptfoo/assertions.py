"""Assertions of promptfoo as checks of a prompt, under promptfoo's names. Nothing of them is ever executed."""

import re
from collections.abc import Mapping
from typing import Any

from tasks.files.read.promptfoo.cases import Untaken

KNOWN = """
    answer-relevance bleu classifier contains contains-all contains-any contains-html contains-json contains-sql
    contains-xml context-faithfulness context-recall context-relevance conversation-relevance cost equals factuality
    finish-reason g-eval gleu guardrails icontains icontains-all icontains-any is-html is-json is-refusal is-sql
    is-valid-function-call is-valid-openai-function-call is-valid-openai-tools-call is-xml latency levenshtein
    llm-rubric meteor model-graded-closedqa model-graded-factuality moderation perplexity perplexity-score pi regex
    rouge-n search-rubric similar similar:cosine similar:dot similar:euclidean starts-with word-count
"""
TYPES = frozenset(KNOWN.split())
CODE = frozenset(("javascript", "fn", "eval", "python", "ruby", "webhook"))
CODE_PREFIX = re.compile(rf"(?:not-)?({'|'.join(sorted(CODE))})(?:\([\d.]+\))?:")
MANY = frozenset(("contains-all", "contains-any", "icontains-all", "icontains-any"))
GRADED = """
    answer-relevance classifier context-faithfulness context-recall context-relevance cost latency levenshtein
    perplexity perplexity-score rouge-n similar starts-with
"""
THRESHOLD = frozenset(GRADED.split())
USUAL_THRESHOLD, SIMILAR_THRESHOLD = 0.75, 0.8
WRITTEN = re.compile(r"(not-)?([a-z][a-z:-]*?)(?:\((\d+(?:\.\d+)?)\))?(?::(.*))?", re.DOTALL)
ELSEWHERE = re.compile(r"^\s*(file|https?|exec|package|python|huggingface)://|^\s*(exec|package):")
EXECUTED = "Code is never executed here; write the assertion as one of text, such as contains or regex."
NOT_READ = "Write what it names into this file; no other file is read."


def written(expected: str) -> dict[str, Any]:
    """The check that a cell of ``__expected`` stands for; a text without a known type is what the answer must equal.

    Raises `Untaken` for code.
    """
    text = expected.strip()
    if found := CODE_PREFIX.match(text):
        raise Untaken(f"The assertion {found[1]} would have to be executed.", EXECUTED)
    refuse_elsewhere(text)
    if text.startswith("grade:"):
        text = "llm-rubric:" + text.removeprefix("grade:")
    parts = WRITTEN.fullmatch(text)
    if parts is None or parts[2] not in TYPES:
        return {"type": "equals", "value": text}
    kind, value = parts[2], (parts[4] or "").strip()
    check: dict[str, Any] = {"type": (parts[1] or "") + kind}
    if kind in MANY:
        check["value"] = [part.strip() for part in value.split(",")]
    elif value:
        check["value"] = value
    if parts[3] or kind in THRESHOLD:
        usual = SIMILAR_THRESHOLD if kind == "similar" else USUAL_THRESHOLD
        check["threshold"] = float(parts[3]) if parts[3] else usual
    return check


def configured(assertion: Any) -> dict[str, Any]:
    """The check that an assertion of a configuration is. Raises `Untaken`."""
    if not isinstance(assertion, Mapping) or not isinstance(assertion.get("type"), str):
        raise Untaken("An assertion is no object with a type.", "Write it as type and value; templates are not read.")
    kind = assertion["type"].removeprefix("not-")
    if kind in CODE or "transform" in assertion or "contextTransform" in assertion:
        raise Untaken(f"The assertion {assertion['type']} would have to be executed.", EXECUTED)
    if kind == "assert-set":
        inner = assertion.get("assert")
        inner = [configured(one) for one in inner] if isinstance(inner, list) else []
        return {**assertion, "assert": inner}
    refuse_elsewhere(assertion)
    return dict(assertion)


def refuse_elsewhere(value: Any) -> None:
    """Raises `Untaken` where any text of ``value`` names a file, an address or a program to be read or run."""
    if isinstance(value, str):
        if found := ELSEWHERE.match(value):
            raise Untaken(f"{found[0].strip()}… names something that lies elsewhere.", NOT_READ)
    elif isinstance(value, Mapping | list):
        for item in value.values() if isinstance(value, Mapping) else value:
            refuse_elsewhere(item)
