"""Completions as the measures see them: where each phase begins."""

import pytest

from tasks.ledger.records import Completion
from tasks.measures.answers import completion_phases
from tasks.states import FinishReason


def test_each_phase_begins_where_its_definition_says() -> None:
    points = {"created": 1.0, "enqueued": 5.0, "claimed": 6.0, "admitted": 6.5, "first_token": 7.0, "last_token": 9.0}
    row = Completion("r", "m", 0, 0, "text", FinishReason.STOP, output_tokens=5, characters=4, written=10.0, **points)
    phases = completion_phases(row)
    assert (phases.queue, phases.ttft, phases.service, phases.e2e) == (1.0, 0.5, 2.5, 9.0)
    assert phases.tpot == pytest.approx(0.5)
    assert phases.characters_per_second == pytest.approx(4 / 2.5)
