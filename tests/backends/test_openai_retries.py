"""The backend `openai`: what is asked again, what is not, and what a server is asked without."""

import time
from typing import Any

import pytest

from tasks.states import FinishReason
from tests.backends.conftest import Opened, joined
from tests.backends.told_server import ToldServer, breaks_off, chat, event, replies, streams

CUT = event(chat("Hal")), event(chat("f"))
TRANSIENT = {
    "500": replies(500, {"error": {"message": "out of memory"}}),
    "503": replies(503, b"<html>busy</html>"),
    "429": replies(429, {"error": "slow down"}, {"retry-after": "0"}),
    "cut": breaks_off(*CUT),
    "ended early": streams(*CUT),
    "no json": streams(CUT[0], b"data: {no\n\n"),
    "not utf-8": streams(CUT[0], b"data: \xff\xff\n\n"),
    "half a character": streams(b"data: \xe4\xbd"),
    "error in the stream": streams(CUT[0], event({"error": {"message": "engine died", "code": 500}})),
    "no list": streams(event({"choices": "x"})),
}


@pytest.mark.parametrize("how", TRANSIENT)
def test_what_may_pass_is_asked_again_and_counts_once(told: ToldServer, model: Opened, how: str) -> None:
    told.does(TRANSIENT[how], TRANSIENT[how])
    answer, increments = model.ask()
    assert (answer.text, answer.finish_reason, answer.retries) == ("Hello, world", FinishReason.STOP, 2)
    assert len(told.asked) == 3 and joined(increments)[0] == "Hello, world"
    assert answer.output_tokens == 3


@pytest.mark.parametrize("how", TRANSIENT)
def test_what_does_not_pass_ends_in_one_line(told: ToldServer, model: Opened, how: str) -> None:
    told.otherwise = TRANSIENT[how]
    answer, _ = model.ask()
    assert answer.finish_reason is FinishReason.ERROR and answer.retries == 4 and len(told.asked) == 5
    assert answer.error and "asked 5 times" in answer.error and "\n" not in answer.error


def test_the_server_says_how_long_to_wait(told: ToldServer, model: Opened) -> None:
    told.does(replies(429, {}, {"retry-after": "1"}))
    started = time.monotonic()
    model.submit(id="first")
    time.sleep(0.3)
    model.submit(id="second")
    assert {model.until_end()[0].generation_id for _ in range(2)} == {"first", "second"}
    assert time.monotonic() - started >= 1.0, "nothing is sent before the server wants it"
    told.does(replies(503, {}, {"retry-after": "3000"}))
    answer, _ = model.ask(deadline=time.monotonic() + 5)
    assert answer.finish_reason is FinishReason.ERROR and "asks to wait" in (answer.error or "")


@pytest.mark.parametrize(
    ("behaviour", "words"),
    [
        (replies(400, {"error": {"message": "maximum context length is 10"}}), "400 Bad Request: maximum context"),
        (replies(401, {"detail": "no key"}), "401 Unauthorized: no key"),
        (replies(404, b"nothing\nhere"), "404 Not Found: nothing here"),
        (replies(200, {"choices": []}), "instead of a stream"),
        (
            replies(307, b"", {"location": "http://elsewhere.example/v1?key=1"}),
            "redirects to http://elsewhere.example/v1;",
        ),
        (streams(event({"error": {"message": "too long", "code": 400}})), "too long"),
        (streams(event({"object": "error", "message": "too long", "code": 400})), "too long"),
    ],
)
def test_what_stays_wrong_is_asked_once(told: ToldServer, model: Opened, behaviour: Any, words: str) -> None:
    told.does(behaviour)
    answer, _ = model.ask()
    assert answer.finish_reason is FinishReason.ERROR and answer.retries == 0 and len(told.asked) == 1
    assert answer.error and words in answer.error


def test_settings_that_the_server_refuses_are_left_out_and_noted(told: ToldServer, model: Opened) -> None:
    told.does(replies(400, {"error": {"message": "Unrecognized request argument supplied: top_k"}}))
    told.does(replies(422, {"detail": [{"type": "extra_forbidden", "loc": ["body", "seed"]}]}))
    before = model.backend.description.environment
    answer, _ = model.ask(sampling={"top_k": 3})
    assert answer.text == "Hello, world" and answer.retries == 0
    assert not {"top_k", "seed"} & told.asked[2].body.keys() and told.asked[0].body["top_k"] == 3
    after = model.backend.description.environment
    assert after.facts["refused"] == ["seed", "top_k"] and after.id != before.id
    model.ask(sampling={"top_k": 3})
    assert len(told.asked) == 4, "it is not asked for what it refuses a second time"


def test_the_newer_name_of_max_tokens(told: ToldServer, model: Opened) -> None:
    said = "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."
    told.does(replies(400, {"error": {"message": said}}))
    answer, _ = model.ask(sampling={"max_new_tokens": 9})
    assert answer.text == "Hello, world"
    assert "max_tokens" not in told.asked[1].body and told.asked[1].body["max_completion_tokens"] == 9


def test_a_value_out_of_range_is_no_unknown_setting(told: ToldServer, model: Opened) -> None:
    told.does(replies(400, {"error": {"message": "top_k must be at most 100, got 3000"}}))
    answer, _ = model.ask(sampling={"top_k": 3000})
    assert answer.finish_reason is FinishReason.ERROR and "at most 100" in (answer.error or "")
