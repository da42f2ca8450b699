"""The service adds to a run with what the registry says of its models."""

import pytest

from tasks.conversation import NewPrompt
from tasks.errors import InvalidInput, NotFound
from tasks.ledger.records import NewAnswer
from tasks.service import Service
from tasks.settings import Settings
from tasks.states import RunAction


def test_a_run_grows_through_the_service(settings: Settings) -> None:
    service = Service(settings)
    first, second, *_ = service.registry.names
    prompts = [NewPrompt("one", custom_id="1"), NewPrompt("two")]
    run, _ = service.submit(prompts=prompts, models=[first], sampling={}, owner="o")
    assert list(service.add_models(run.id, [second]).entries) == [first, second]
    assert service.add_samples(run.id, 1).counts.total == 8
    grown, idx = service.add_prompts(run.id, [NewPrompt("three")])
    assert (grown.counts.total, idx) == (12, 2)
    assert service.import_answers(run.id, [NewAnswer("x", "1")], "GPT").taken == 1
    other, _ = service.submit(prompts=[*prompts, NewPrompt("three")], models=[first], sampling={}, owner="o", samples=2)
    service.act(other.id, RunAction.CANCEL)
    merged = service.merge(run.id, other.id)
    assert list(merged.models) == [first, second, "GPT (imported)", f"{first} (2)"]
    assert set(service.waits(merged)) == {first, second}
    assert service.name_set(merged.prompt_set or "", "Ones").runs == 2
    assert service.ledger.runs.get(other.id).set_name == "Ones"
    with pytest.raises(NotFound, match="nobody"):
        service.add_models(run.id, ["nobody"])
    with pytest.raises(InvalidInput, match="empty"):
        service.add_prompts(run.id, [NewPrompt(" ")])
    with pytest.raises(InvalidInput, match="characters"):
        service.name_set(merged.prompt_set or "", "")
    service.ledger.close()
