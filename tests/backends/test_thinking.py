"""Thinking is parted from answers in the same way however the text comes in pieces."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.backends.thinking import KNOWN_MARKS, Marks, ThinkingSplitter

MARKS = KNOWN_MARKS[0]
PARTS = st.lists(st.sampled_from(["<think>", "</think>", "<", "think", ">", " ", "\n", "a", "春", "</"]), max_size=14)


def split(pieces: list[str], marks: Marks = MARKS, opened: bool = False) -> tuple[str, str]:
    splitter = ThinkingSplitter(marks, opened)
    told = [*(splitter.push(piece) for piece in pieces), splitter.finish()]
    return "".join(thinking for thinking, _ in told), "".join(answer for _, answer in told)


@pytest.mark.parametrize("marks", KNOWN_MARKS)
def test_every_known_pair_of_marks_is_taken_out(marks: Marks) -> None:
    text = f"\n{marks.opening}\nlet me see{marks.closing}\n\nParis."
    assert split([text], marks) == ("\nlet me see", "Paris.")


@given(PARTS, st.booleans())
def test_pieces_give_what_the_whole_gives(pieces: list[str], opened: bool) -> None:
    assert split(pieces, opened=opened) == split(["".join(pieces)], opened=opened)


@given(PARTS, st.booleans())
def test_no_character_is_lost_or_made_up(pieces: list[str], opened: bool) -> None:
    whole = "".join(pieces)
    thinking, answer = split(pieces, opened=opened)
    assert thinking in whole and answer in whole
    if MARKS.opening not in whole and MARKS.closing not in whole and not opened:
        assert (thinking, answer) == ("", whole)


@pytest.mark.parametrize(
    ("pieces", "opened", "wanted"),
    [
        (["so ", "be it</thi", "nk>\n", "\nyes"], True, ("so be it", "yes")),
        (["<thi", "nk>", "cut off"], False, ("cut off", "")),
        (["<thinner> soup"], False, ("", "<thinner> soup")),
        (["answer with <think> in it"], False, ("", "answer with <think> in it")),
        ([" \n"], False, ("", " \n")),
    ],
)
def test_what_only_looks_like_a_mark_stays(pieces: list[str], opened: bool, wanted: tuple[str, str]) -> None:
    assert split(pieces, opened=opened) == wanted
