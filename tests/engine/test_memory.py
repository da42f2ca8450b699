"""What a worker does without, and what its keys and values take."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from tasks.settings import ROOT
from tests.engine.tiny import CONFIGS, reference_model
from worker.backends.weights import open_weights
from worker.engine.batch import BatchMetadata, Span
from worker.engine.cache import SlotCache

# In a process of its own, as a worker is: torch is imported here already.
AS_A_WORKER = """
import sys
from worker import import_stub
import_stub.install()
import torch
import worker.backends.loading
from worker.backends.weights import open_weights
model = open_weights({folder!r})
assert model(torch.tensor([[2, 3]])).logits.isfinite().all()
print(*sorted({{"sympy", "torch.distributed.tensor", "torch._inductor"}} & sys.modules.keys()))
print(torch.distributed.is_available(), type(torch._dynamo).__name__)
doubled = torch.compile(lambda x: x * 2, backend="eager", fullgraph=True)
print(doubled(torch.ones(2)).tolist(), type(torch._dynamo).__name__)
"""


@pytest.mark.parametrize("name", ["gpt2", "llama", "qwen2", "qwen3", "gpt_neox"])
def test_a_worker_loads_no_compiler_and_has_one_if_asked(name: str, tmp_path: Path) -> None:
    reference_model(name).save_pretrained(tmp_path)
    code = AS_A_WORKER.format(folder=str(tmp_path))
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["", "False _NoCompiler", "[2.0, 2.0] module"]


@pytest.mark.parametrize("name", CONFIGS)
def test_weights_are_those_of_the_file(name: str, tmp_path: Path) -> None:
    reference_model(name).save_pretrained(tmp_path)
    opened, plain = open_weights(str(tmp_path)), AutoModelForCausalLM.from_pretrained(tmp_path)
    expected = dict(plain.named_parameters()) | dict(plain.named_buffers())
    actual = dict(opened.named_parameters()) | dict(opened.named_buffers())
    assert actual.keys() == expected.keys()
    assert all(torch.equal(actual[key], expected[key]) for key in expected)


def test_positions_that_nobody_wrote_take_no_memory() -> None:
    if not Path("/proc/self/statm").is_file():
        pytest.skip("needs Linux, whose /proc tells how much memory is taken")
    cache = SlotCache(512, 4096, None)
    batch = BatchMetadata([Span(3, 0, 1, 4096)], True, torch.device("cpu"))
    states = torch.ones(1, 1, 1, 64)
    before = resident_pages()
    cache.begin(batch)
    keys, values = cache.write(0, states, states)
    taken = (resident_pages() - before) * 4096
    assert keys[3, 4095].eq(1).all() and not values[511].any()
    assert cache.nbytes == 2 * 512 * 4096 * 64 * 4
    assert taken < cache.nbytes / 4, "what was written and what the lines above have read"


def test_keys_and_values_that_fit_nowhere_are_a_lack_of_memory() -> None:
    cache = SlotCache(1 << 20, 1 << 20, None)
    cache.begin(BatchMetadata([Span(0, 0, 1, 1 << 20)], True, torch.device("cpu")))
    with pytest.raises(MemoryError):
        cache.write(0, torch.ones(1, 8, 1, 64), torch.ones(1, 8, 1, 64))


def resident_pages() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1])
