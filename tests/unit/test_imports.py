"""The rooms: web → tasks ← worker, and nothing heavy where it is not needed."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tasks.settings import ROOT

ALLOWED = {"tasks": {"tasks"}, "web": {"tasks", "web"}, "worker": {"tasks", "worker"}}


@pytest.mark.parametrize(
    ("modules", "forbidden"),
    [
        (
            "tasks, tasks.service, tasks.queue.scorer, tasks.commands, tasks.files.read, tasks.registry",
            "torch transformers flask web worker",
        ),
        ("web", "torch transformers worker"),
        ("worker, worker.process", "torch transformers flask web"),
    ],
)
def test_importing_a_room_loads_nothing_it_must_not(modules: str, forbidden: str) -> None:
    code = f"import sys, {modules}; print([m for m in {forbidden.split()!r} if m in sys.modules])"
    shown = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"


@pytest.mark.parametrize("file", [path for room in ALLOWED for path in (ROOT / room).rglob("*.py")], ids=str)
def test_imports_point_one_way_and_stand_at_the_top(file: Path) -> None:
    room = file.relative_to(ROOT).parts[0]
    tree = ast.parse(file.read_text(encoding="utf-8"))
    at_top = {id(node) for node in tree.body}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            assert id(node) in at_top, f"line {node.lineno}: an import inside a block"
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            rooms = {name.split(".")[0] for name in names} & ALLOWED.keys()
            assert rooms <= ALLOWED[room], f"line {node.lineno}: {room} imports {rooms - ALLOWED[room]}"
