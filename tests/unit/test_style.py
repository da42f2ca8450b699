"""ruff and mypy stay clean, and README speaks only of commands that exist."""

import re
import subprocess
import sys

import pytest

from tasks.__main__ import main
from tasks.settings import ROOT


@pytest.mark.parametrize("command", ["ruff check .", "ruff format --check .", "mypy"])
def test_the_code_is_clean(command: str) -> None:
    done = subprocess.run([sys.executable, "-m", *command.split()], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("file", ["README.md", "README.zh.md"])
def test_every_command_of_the_readme_exists(file: str) -> None:
    text = (ROOT / file).read_text(encoding="utf-8")
    commands = set(re.findall(r"\./touchstone ([\w-]+)", text))
    assert {"up", "test", "run", "export", "add-models", "pause", "models", "doctor", "worker"} == commands
    assert commands - {"test"} <= set(main.commands)
    assert text.index("./touchstone up") < text.index("./touchstone test") < 900
