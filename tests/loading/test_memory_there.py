"""How much memory there is, and how much a model takes."""

from pathlib import Path

import pytest

from tasks.host.memory import available_bytes
from tasks.registry.inspection import Format, Inspection, cache_bytes, context_of

GIB = 2**30


@pytest.fixture
def meminfo(tmp_path: Path) -> Path:
    path = tmp_path / "meminfo"
    path.write_text("MemTotal:       33554432 kB\nMemFree:   100 kB\nMemAvailable:   16777216 kB\n", encoding="ascii")
    return path


def write(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text, encoding="ascii")


def test_without_limits_it_is_what_the_machine_can_free(tmp_path: Path, meminfo: Path) -> None:
    assert available_bytes(meminfo, tmp_path / "none", tmp_path / "none") == 16 * GIB
    assert available_bytes(tmp_path / "none", tmp_path / "none", tmp_path / "none") is None
    real = available_bytes()
    assert real is None or 0 < real < 2**50


@pytest.mark.parametrize("path", ["/box/worker", "/told/from/outside"])
def test_the_tightest_group_of_version_two_counts(tmp_path: Path, meminfo: Path, path: str) -> None:
    own, groups = tmp_path / "own", tmp_path / "cgroup"
    own.write_text(f"0::{path}\n", encoding="ascii")
    write(groups, memory__max=str(8 * GIB), memory__current=str(3 * GIB), memory__stat=f"inactive_file {GIB}\n")
    write(groups / "box", memory__max=str(4 * GIB), memory__current=str(GIB), memory__stat="anon 5\n")
    write(groups / "box" / "worker", memory__max="max\n", memory__current=str(GIB))
    expected = 3 * GIB if path.startswith("/box") else 6 * GIB
    assert available_bytes(meminfo, groups, own) == expected


def test_version_one_counts_too(tmp_path: Path, meminfo: Path) -> None:
    own, groups = tmp_path / "own", tmp_path / "cgroup"
    own.write_text("9:cpuset:/box\n4:memory:/box\n0::/\n", encoding="ascii")
    write(groups / "memory", memory__limit_in_bytes=str(2**63 - 4096), memory__usage_in_bytes="5")
    write(
        groups / "memory" / "box",
        memory__limit_in_bytes=str(2 * GIB),
        memory__usage_in_bytes=str(GIB),
        memory__stat=f"total_inactive_file {GIB // 2}\n",
    )
    assert available_bytes(meminfo, groups, own) == 3 * GIB // 2


def test_more_numbers_slots_and_context_take_more() -> None:
    found = Inspection(Format.SAFETENSORS, "LlamaForCausalLM", 10**9, 2 * 10**9, 8192, True, 20_000)
    least = found.memory_needed(2, 1, 128)
    assert least > 2 * 10**9
    assert found.memory_needed(4, 1, 128) - least >= 2 * 10**9
    assert found.memory_needed(2, 9, 128) - least == 8 * 128 * 20_000
    assert found.memory_needed(2, 1, 10**6) == found.memory_needed(2, 1, 8192), "not the whole of a long context"


@pytest.mark.parametrize(
    ("config", "context"),
    [
        ({"max_position_embeddings": 4096}, 4096),
        ({"n_positions": 1024}, 1024),
        ({"max_sequence_length": 512}, 512),
        ({"n_ctx": 256}, 256),
        ({"seq_length": 131072}, 131072),
        ({"max_position_embeddings": None, "seq_length": 77}, 77),
        ({"max_position_embeddings": -1}, None),
        ({"state_size": 16}, None),
        ({"max_position_embeddings": 131072, "rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, 131072),
        (
            {
                "max_position_embeddings": 32768,
                "rope_scaling": {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768},
            },
            131072,
        ),
    ],
)
def test_the_context_is_found_under_each_name(config: dict[str, object], context: int | None) -> None:
    assert context_of(config) == context


def test_the_cache_of_grouped_heads_is_smaller() -> None:
    many = {"num_hidden_layers": 2, "num_attention_heads": 8, "hidden_size": 64}
    assert cache_bytes(many) == 2 * 2 * 2 * 8 * 8
    assert cache_bytes(many | {"num_key_value_heads": 2}) == 2 * 2 * 2 * 2 * 8
    assert cache_bytes({"n_layer": 2, "n_head": 8, "n_embd": 64, "multi_query": True}) == 2 * 2 * 2 * 1 * 8
    assert cache_bytes({"num_hidden_layers": 2, "state_size": 16}) == 0
