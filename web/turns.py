"""Prompts of a run as conversations: which turn follows which."""

from collections.abc import Sequence

from tasks.ledger.records import Prompt


def in_order(prompts: Sequence[Prompt]) -> list[Prompt]:
    """The same prompts, each right before those that follow it; one whose turn before is not here stands for itself."""
    here = {prompt.idx for prompt in prompts}
    followers: dict[int | None, list[Prompt]] = {}
    for prompt in prompts:
        followers.setdefault(prompt.follows if prompt.follows in here else None, []).append(prompt)
    ordered: list[Prompt] = []
    open_turns = followers.get(None, [])[::-1]
    while open_turns:
        ordered.append(open_turns.pop())
        open_turns += followers.get(ordered[-1].idx, [])[::-1]
    return ordered


def to_continue(prompts: Sequence[Prompt]) -> int | None:
    """Index of the turn that a next one follows, where ``prompts`` are a single conversation; else None."""
    begun = sum(prompt.follows is None for prompt in prompts)
    return prompts[-1].idx if begun == 1 else None
