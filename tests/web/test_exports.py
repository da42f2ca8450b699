"""A run as a file, through the API and from its page."""

import json

import pytest
from flask.testing import FlaskClient

from tasks.ledger import Ledger
from tasks.settings import Settings
from tests.web import filled
from web import create_app


@pytest.fixture
def client(settings: Settings) -> FlaskClient:
    return create_app(settings).test_client()


@pytest.fixture
def run(ledger: Ledger, settings: Settings) -> str:
    run_id = filled.conversation(ledger, settings)
    filled.answer(ledger)
    return run_id


@pytest.mark.parametrize("models", [["poet-small"], ["poet-large", "poet-small"]])
def test_the_models_of_an_export_are_chosen_by_the_address(client: FlaskClient, run: str, models: list[str]) -> None:
    query = "&".join(f"models={name}" for name in models)
    answer = client.get(f"/api/runs/{run}/export?format=jsonl&{query}")
    header = json.loads(answer.text.splitlines()[0])
    assert sorted(model["name"] for model in header["models"]) == sorted(models)
    assert client.get(f"/api/runs/{run}/export?format=csv&models=nope").status_code == 422
