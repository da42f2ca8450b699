"""Which column or key holds what of a prompt: by the names that people give them, or as a person says."""

from collections.abc import Iterable, Mapping

from tasks.files.read.reading import Column, Problem

ALIASES: Mapping[Column, tuple[str, ...]] = {
    Column.PROMPT: (
        "prompt", "instruction", "question", "input", "query", "content", "text", "提示词", "问题", "指令",
    ),
    Column.SYSTEM: ("system", "system_prompt", "系统", "系统提示词"),
    Column.CATEGORY: ("category", "类别", "分类"),
    Column.REFERENCE: ("reference", "答案", "参考答案", "answer", "target"),
    Column.CUSTOM_ID: ("custom_id", "id", "编号", "序号", "question_id", "uid"),
    Column.TAGS: ("tags", "tag", "subcategory", "cluster", "标签", "子类别"),
}  # fmt: skip
RESPONSE = "response"  # beside a query it is the reference, not an answer that a model gave


def plain(name: str) -> str:
    """A name as it is compared: without white space around it, in small letters."""
    return name.strip().casefold()


_PROMPTS = frozenset(ALIASES[Column.PROMPT])
_KNOWN = frozenset(alias for aliases in ALIASES.values() for alias in aliases)


def is_prompt(name: str) -> bool:
    return plain(name) in _PROMPTS


def is_known(name: str) -> bool:
    return plain(name) in _KNOWN


def mapped(names: Iterable[str], by_hand: Mapping[Column, str] | None) -> dict[Column, str]:
    """The name of the column for each thing that one of ``names`` holds; what a person says goes first.

    An empty name says that no column holds it, which is no answer where prompts are asked for.
    """
    there = {plain(name): name for name in reversed(list(names))}
    found: dict[Column, str] = {}
    by_hand = {column: name for column, name in (by_hand or {}).items() if name or column is not Column.PROMPT}
    for column, name in by_hand.items():
        if name and plain(name) in there:
            found[column] = there.pop(plain(name))
    for column, aliases in ALIASES.items():
        if column in found or column in by_hand:
            continue
        if alias := next((alias for alias in aliases if alias in there), None):
            found[column] = there.pop(alias)
    if Column.REFERENCE not in found and plain(found.get(Column.PROMPT, "")) == "query" and RESPONSE in there:
        found[Column.REFERENCE] = there.pop(RESPONSE)
    return found


def listed(names: Iterable[str]) -> str:
    """The names of columns for a message, the first twenty of them."""
    shown = [name for name in names if name.strip()]
    return ", ".join(shown[:20]) + (", …" if len(shown) > 20 else "") or "none with a name"


def header_problem(line: int, names: Iterable[str]) -> Problem | None:
    """What is wrong with the header of a table that stands in ``line``."""
    positions: dict[str, int] = {}
    for position, name in enumerate(map(plain, names), 1):
        if name and name in positions:
            reason = f"Columns {positions[name]} and {position} are both called {name!r}."
            return Problem(line, reason, "Give each column a name of its own.", final=True)
        positions[name] = position
    return None
