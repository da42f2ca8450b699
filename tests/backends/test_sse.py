"""Server-sent events: the same whichever way their bytes are cut."""

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.backends.openai.problems import TryAgain
from worker.backends.openai.sse import EventParser, ServerEvent

LINES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\n"), max_size=12)
FIELDS = st.one_of(
    LINES.map("data: {}".format), LINES.map("data:{}".format), LINES.map(": {}".format), st.just("event: error"), LINES
)
ENDS = st.sampled_from(["\n", "\r\n", "\r"])


def parse(*chunks: bytes) -> list[ServerEvent]:
    parser = EventParser()
    return [event for chunk in chunks for event in parser.push(chunk)]


@given(
    st.lists(st.tuples(st.lists(FIELDS, max_size=4), ENDS), max_size=5),
    st.booleans(),
    st.lists(st.integers(0, 400), max_size=12),
)
def test_any_cut_of_the_bytes_gives_the_same_events(
    events: list[tuple[list[str], str]], has_mark: bool, cuts: list[int]
) -> None:
    text = "".join("".join(line + end for line in [*lines, ""]) for lines, end in events)
    stream = (("\ufeff" if has_mark else "") + text).encode()
    whole = parse(stream)
    places = sorted({min(cut, len(stream)) for cut in cuts} | {0, len(stream)})
    assert parse(*(stream[a:b] for a, b in itertools.pairwise(places))) == whole
    assert parse(*(stream[i : i + 1] for i in range(len(stream)))) == whole


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=20), max_size=6))
def test_what_was_sent_as_json_comes_back(texts: list[str]) -> None:
    stream = b"".join(b"data: " + json.dumps(text, ensure_ascii=False).encode() + b"\n\n" for text in texts)
    # Line separators of Unicode are no line ends here.
    assert [json.loads(event.data) for event in parse(*(stream[i : i + 3] for i in range(0, len(stream), 3)))] == texts


def test_fields() -> None:
    assert parse(b"data: a\ndata:  b\n: comment\nid: 7\nretry: 9\n\n") == [ServerEvent("message", "a\n b")]
    assert parse(b"event: error\ndata: x\n\ndata: y\n\n") == [ServerEvent("error", "x"), ServerEvent("message", "y")]
    assert parse(b"event: nothing\n\n", b"\n\n") == []
    assert parse(b"data\n\n") == [ServerEvent("message", "")]


def test_an_event_that_nothing_ends_is_none() -> None:
    assert parse(b"data: a\n") == []


def test_half_a_character_waits_for_its_other_half() -> None:
    face = "😀".encode()
    assert parse(b"data: " + face[:2]) == []
    assert parse(b"data: " + face[:2], face[2:] + b"\n\n") == [ServerEvent("message", "😀")]


@pytest.mark.parametrize("bad", [b"data: \xff\n\n", b"data: \xe4\xbd\n\n", b"data: \xed\xa0\x80\n\n"])
def test_what_is_no_utf8_is_refused(bad: bytes) -> None:
    with pytest.raises(TryAgain, match="UTF-8"):
        parse(bad)


def test_an_event_without_end_is_refused() -> None:
    parser = EventParser()
    with pytest.raises(TryAgain, match="without end"):
        for _ in range(10):
            parser.push(b"data: " + b"x" * 1_000_000 + b"\n")
