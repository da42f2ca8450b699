"""A model joins a run while a column of the same name is merged in: whoever comes first has the name, whole."""

import pytest

from tasks.errors import Conflict
from tasks.ledger import Ledger, merging
from tasks.ledger.growth import NewColumn
from tasks.ledger.merging import Merging
from tasks.states import RunState
from tests.unit.growth_rows import entry, submit, work_off
from tests.unit.test_growth_in_pieces import stop


@pytest.fixture
def runs(each_ledger: Ledger) -> tuple[str, str]:
    """A finished run of a, and one of c over the same prompts."""
    ids = [submit(each_ledger, models=model).id for model in "ac"]
    for run_id in ids:
        work_off(each_ledger, run_id)
    return ids[0], ids[1]


def add(ledger: Ledger, run_id: str) -> None:
    ledger.growth.add_models(run_id, {"c": NewColumn(entry(), 2)})


def test_a_model_that_joins_before_the_first_copy_keeps_its_column(
    each_ledger: Ledger, runs: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    named = merging.free_name

    def join_after(wanted: str, taken: set[str]) -> str:
        name = named(wanted, taken)
        add(each_ledger, runs[0])
        return name

    monkeypatch.setattr(merging, "free_name", join_after)
    with pytest.raises(Conflict, match="'c'"):
        each_ledger.growth.merge(*runs)
    ended = work_off(each_ledger, runs[0])
    assert (ended.state, ended.models["c"].done, ended.growing) == (RunState.DONE, 4, ["a", "c"])


def test_a_model_cannot_join_under_the_name_of_a_column_that_is_being_copied(
    each_ledger: Ledger, runs: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    work = Merging(each_ledger.database, *runs)
    seal = work.staging.seal

    def join_before(*given: object) -> None:
        with pytest.raises(Conflict, match="adding"):
            add(each_ledger, runs[0])
        seal(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(work.staging, "seal", join_before)
    work.merge()
    merged = each_ledger.runs.get(runs[0])
    assert (merged.state, merged.models["c"].done, merged.merged) == (RunState.DONE, 4, {"c": runs[1]})


def test_what_an_abandoned_merge_left_is_cleared_before_a_model_of_that_name_joins(
    each_ledger: Ledger, runs: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    work = Merging(each_ledger.database, *runs)
    monkeypatch.setattr(work.staging, "seal", lambda *_: pytest.fail("killed"))
    monkeypatch.setattr(work.staging, "give_back", lambda: None)
    with pytest.raises(pytest.fail.Exception):
        work.merge()
    stop(each_ledger, runs[0])
    add(each_ledger, runs[0])
    ended = work_off(each_ledger, runs[0])
    assert (ended.state, ended.models["c"].done, ended.growing) == (RunState.DONE, 4, ["a", "c"])
