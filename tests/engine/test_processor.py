"""A processor that stands for a lesser one: which classes there are, and who has to keep to them."""

import os
import subprocess
import sys

import pytest

from tasks.errors import ConfigurationError
from tasks.settings import ROOT
from worker.engine import compiler, processor
from worker.engine.processor import LIMITS, VARIABLE, Processor

# In a process of its own, as torch reads its limits once, when it is imported.
AS_ON_IT = """
import worker
import torch
from worker.backends.device import choose_dtype
from worker.engine import native, processor
print(torch.backends.cpu.get_cpu_capability(), choose_dtype("auto", torch.device("cpu")))
print(processor.march(), native.load().multiplies, *sorted(processor.instruction_sets() & {"avx2", "avx512_bf16"}))
"""


def start(name: str) -> "subprocess.CompletedProcess[str]":
    environment = {key: value for key, value in os.environ.items() if key not in LIMITS[Processor.AVX2].libraries}
    return subprocess.run(
        [sys.executable, "-c", AS_ON_IT],
        cwd=ROOT,
        env=environment | {VARIABLE: name},
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.needs("avx2", "fma", "f16c", "bmi2")
def test_torch_dtype_and_kernels_are_those_of_the_processor_that_is_named() -> None:
    done = start("avx2")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["AVX2 torch.float32", "x86-64-v3 False avx2"]


def test_an_unknown_processor_is_refused_with_those_that_there_are() -> None:
    done = start("pentium")
    assert done.returncode != 0
    assert "TOUCHSTONE_PROCESSOR is 'pentium'; set it to one of native, avx2, avx512" in done.stderr


def test_a_processor_that_can_do_more_than_this_one_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "avx512")
    monkeypatch.setattr(processor, "present", lambda: frozenset({"sse2", "avx2"}))
    with pytest.raises(ConfigurationError, match="avx512bw"):
        processor.march()


def test_a_limit_hides_newer_instruction_sets_and_keeps_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    has = LIMITS[Processor.AVX512].needs | {"avx512_bf16", "amx_tile", "avx_vnni", "sse2"}
    monkeypatch.setattr(processor, "present", lambda: has)
    monkeypatch.setenv(VARIABLE, "avx2")
    assert processor.instruction_sets() == LIMITS[Processor.AVX2].needs | {"sse2"}
    monkeypatch.setenv(VARIABLE, "avx512")
    assert processor.instruction_sets() == LIMITS[Processor.AVX512].needs | {"sse2"}
    monkeypatch.delenv(VARIABLE)
    assert processor.instruction_sets() == has and processor.march() == "native"


@pytest.mark.needs()
@pytest.mark.parametrize(("demanded", "outcome"), [("", "1 skipped"), ("1", "1 error")])
def test_a_kernel_test_that_could_run_must_run_where_services_are_demanded(demanded: str, outcome: str) -> None:
    one = "tests/engine/test_native.py::test_a_row_that_a_table_does_not_have_is_refused"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", one],
        cwd=ROOT,
        env=os.environ | {compiler.OFF: "0", "TOUCHSTONE_REQUIRE_SERVICES": demanded},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert outcome in done.stdout and "C++ compiler" in done.stdout, done.stdout


def test_limits_that_come_too_late_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "avx2")
    for name in LIMITS[Processor.AVX2].libraries:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setitem(sys.modules, "torch", sys.modules.get("torch") or sys)
    with pytest.raises(RuntimeError, match="before"):
        processor.limit_libraries()
