"""Times and estimates in words."""

from collections.abc import Mapping
from typing import Any

UNITS = ((86_400.0, "days"), (3600.0, "h"), (60.0, "min"), (1.0, "s"))
WHOLE_FROM = 10.0


def duration(seconds: float) -> str:
    """A time in its largest unit, with two digits."""
    size, unit = next((pair for pair in UNITS if seconds >= pair[0]), UNITS[-1])
    number = seconds / size
    return f"{number:.0f} {unit}" if number >= WHOLE_FROM else f"{number:.1f} {unit}"


def span(low: float | None, high: float | None) -> str:
    """A range of times; without a highest it is only a least one."""
    if low is None:
        return "unknown"
    if high is None:
        return f"at least {duration(low)}"
    least, most = duration(low), duration(high)
    if least == most:
        return least
    number, unit = least.split(" ")
    return f"{number} to {most}" if unit == most.split(" ")[1] else f"{least} to {most}"


def model_words(model: Mapping[str, Any]) -> str:
    """What an estimate says of one model."""
    said = model.get("reason") or span(model.get("low"), model.get("high"))
    parts = [f"{model['name']}: {said}"]
    for key, before in (("wait", "other runs"), ("load", "loading")):
        if (seconds := model.get(key) or 0.0) >= 1.0:
            parts.append(f"{duration(seconds)} of it for {before}")
    if number := model.get("too_long"):
        may = "may be " if model.get("guessed") else ""
        parts.append(f"{may}too long for its context: {number} prompt{'s' if number > 1 else ''}")
    return ", ".join(parts)
