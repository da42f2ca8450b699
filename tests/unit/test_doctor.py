"""What doctor says of models: whether what their entries name is there."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from tasks.host.doctor import examine
from tasks.settings import Settings

HERE = '[[model]]\nname = "here"\nsource = "./m"\n'
GONE = '[[model]]\nname = "gone"\nsource = "./gone"\n'
SERVED = '[[model]]\nname = "served"\nbackend = "openai"\nserve = ["no-such-server", "{port}"]\n'


def test_a_model_whose_folder_or_server_is_not_there_is_named(tmp_path: Path, settings: Settings) -> None:
    (tmp_path / "m").mkdir()
    models = tmp_path / "models.toml"
    models.write_text(HERE + GONE + SERVED, encoding="utf-8")
    found = {one.subject: one for one in examine(replace(settings, models=models))}
    assert found["model here"].ok
    assert not found["model gone"].ok and str(tmp_path / "gone") in found["model gone"].text
    assert not found["model served"].ok and "no-such-server" in found["model served"].text


@pytest.mark.skipif(shutil.which("sh") is None, reason="needs sh")
def test_a_server_whose_program_is_there_is_fine(tmp_path: Path, settings: Settings) -> None:
    models = tmp_path / "models.toml"
    models.write_text(SERVED.replace("no-such-server", "sh"), encoding="utf-8")
    assert {one.subject: one.ok for one in examine(replace(settings, models=models))}["model served"]
