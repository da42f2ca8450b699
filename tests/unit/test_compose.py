"""compose.yaml against the compose specification's schema, and what must be in it."""

import subprocess
import sys

import ruamel.yaml

from tasks.registry import Registry
from tasks.settings import ROOT

COMPOSE = ruamel.yaml.YAML(typ="safe").load((ROOT / "compose.yaml").read_text(encoding="utf-8"))


def test_it_fits_the_compose_specification() -> None:
    argv = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", "compose.yaml"]
    checked = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_every_model_has_a_worker() -> None:
    commands = [service.get("command", []) for service in COMPOSE["services"].values()]
    assert set(Registry.load(ROOT / "models.toml").names) <= {command[-1] for command in commands if command}


def test_redis_keeps_and_never_evicts() -> None:
    command = COMPOSE["services"]["redis"]["command"]
    assert command[command.index("--appendonly") + 1] == "yes"
    assert command[command.index("--maxmemory-policy") + 1] == "noeviction"


def test_the_web_is_on_loopback_and_its_image_has_no_torch() -> None:
    assert all(port.startswith("127.0.0.1:") for port in COMPOSE["services"]["web"]["ports"])
    for file in ("web/requirements.txt", "tasks/requirements.txt"):
        assert "torch" not in (ROOT / file).read_text(encoding="utf-8")
