"""The engine's own kernels against torch, and what happens where they cannot be built."""

import ctypes
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from torch import nn

from tasks.errors import ConfigurationError
from worker.engine import arguments, compiler, native, processor
from worker.engine.native import POSTS, Native
from worker.engine.packed import pack

POST_FUNCTIONS = {
    "none": nn.Identity(),
    "relu": nn.ReLU(),
    "gelu_tanh": nn.GELU(approximate="tanh"),
    "gelu": nn.GELU(),
    "silu": nn.SiLU(),
}
CLOSE = {torch.float32: 1e-5, torch.bfloat16: 1e-2}


pytestmark = pytest.mark.needs()
multiplies = pytest.mark.needs("avx512_bf16")


@pytest.fixture(scope="module")
def kernels() -> Native:
    found = native.load()
    assert found is not None
    return found


def test_there_is_code_for_what_the_processor_can(kernels: Native) -> None:
    assert kernels.multiplies == ("avx512_bf16" in processor.instruction_sets())


def test_a_layer_that_there_is_no_code_for_is_refused_by_name(kernels: Native, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a wrong number nor a message about something else."""
    other = Native(kernels.library)
    monkeypatch.setattr(other, "multiplies", False)
    weight = torch.ones(1, 2).bfloat16()
    for call in (lambda: other.pack(weight), lambda: other.linear(weight, weight, None, 1, 0)):
        with pytest.raises(NotImplementedError, match="avx512_bf16"):
            call()


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ((("token", ctypes.c_int32), ("head", ctypes.c_int32)), "Strides is 16 bytes at 0 there and 8 bytes at 0 here"),
        (
            (("head", ctypes.c_int64), ("token", ctypes.c_int64)),
            "Strides.head is 8 bytes at 8 there and 8 bytes at 0 here",
        ),
        ((("token", ctypes.c_int64), ("heads", ctypes.c_int64)), "Strides.heads is nowhere there"),
    ],
    ids=["narrower", "turned", "renamed"],
)
def test_arguments_that_lie_elsewhere_than_in_the_kernels_are_refused(
    monkeypatch: pytest.MonkeyPatch, fields: Any, words: str
) -> None:
    wrong = type("Strides", (ctypes.Structure,), {"_fields_": fields})
    right = [each for each in arguments.STRUCTURES if each.__name__ != "Strides"]
    monkeypatch.setattr(arguments, "STRUCTURES", (wrong, *right))
    monkeypatch.setattr(native, "load", native.load.__wrapped__)
    with pytest.raises(ConfigurationError, match=words):
        native.load()


def test_a_struct_that_is_not_mirrored_is_refused(kernels: Native, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arguments, "STRUCTURES", arguments.STRUCTURES[:-1])
    with pytest.raises(ConfigurationError, match=r"Step\.kernel is 8 bytes at 0 there and nowhere here"):
        arguments.check(kernels.library)


def test_heads_that_there_is_no_code_for_are_refused(kernels: Native) -> None:
    states, place = torch.zeros(1, 1, 8), torch.zeros(1, dtype=torch.int32)
    assert not kernels.attends(torch.float32, 8)
    with pytest.raises(NotImplementedError, match="size of heads"):
        kernels.attend(states, states, states, states[None], states[None], place, place, 1.0, 0)


def test_a_row_that_a_table_does_not_have_is_refused(kernels: Native) -> None:
    with pytest.raises(IndexError, match="row"):
        kernels.lookup(torch.ones(3, 2), torch.tensor([3]))


steps = st.lists(st.tuples(st.integers(1, 5), st.integers(0, 70)), min_size=1, max_size=4)


@given(
    spans=steps,
    heads=st.sampled_from([(1, 1), (4, 2), (6, 2), (3, 3)]),
    dim=st.sampled_from(sorted(native.DIMS)),
    window=st.sampled_from([0, 1, 9, 40]),
    softcap=st.sampled_from([0.0, 0.5, 50.0]),
    dtype=st.sampled_from(list(CLOSE)),
)
@hypothesis_settings(max_examples=60, deadline=None)
def test_attention_is_that_of_torch(
    kernels: Native,
    spans: list[tuple[int, int]],
    heads: tuple[int, int],
    dim: int,
    window: int,
    softcap: float,
    dtype: torch.dtype,
) -> None:
    """Each slot reads some tokens after those it has; each token sees its slot up to itself, or a window of it."""
    generator = torch.Generator().manual_seed(len(spans) * dim)
    capacity = max(count + before for count, before in spans) + 3
    tokens = sum(count for count, _ in spans)
    # As GPT-2 hands them over: slices of one product, so that only the last dimension is contiguous.
    both = torch.randn(tokens, heads[0] + 2 * heads[1], dim, generator=generator).to(dtype).transpose(0, 1)
    query, key, value = both.split([heads[0], heads[1], heads[1]])
    keys, values = torch.randn(2, len(spans), capacity, heads[1], dim, generator=generator).to(dtype)
    slots = [slot for slot, (count, _) in enumerate(spans) for _ in range(count)]
    positions = [before + i for count, before in spans for i in range(count)]
    expected_keys, expected_values = keys.clone(), values.clone()
    for token, (slot, position) in enumerate(zip(slots, positions, strict=True)):
        expected_keys[slot, position] = key[:, token]
        expected_values[slot, position] = value[:, token]
    places = (torch.tensor(slots, dtype=torch.int32), torch.tensor(positions, dtype=torch.int32))
    out = kernels.attend(query, key, value, keys, values, *places, dim**-0.5, window, softcap)
    assert torch.equal(keys, expected_keys) and torch.equal(values, expected_values)
    for token, (slot, position) in enumerate(zip(slots, positions, strict=True)):
        first = max(0, position + 1 - window) if window else 0
        seen = [states[slot, first : position + 1].transpose(0, 1).float() for states in (keys, values)]
        key_seen, value_seen = (each.repeat_interleave(heads[0] // heads[1], 0) for each in seen)
        scores = query[:, token, None].float() @ key_seen.transpose(1, 2) * dim**-0.5
        scores = softcap * torch.tanh(scores / softcap) if softcap else scores
        expected = torch.softmax(scores, -1) @ value_seen
        assert (out[token].float() - expected[:, 0]).abs().max() <= CLOSE[dtype] * expected.abs().max().clamp(min=1)


def test_a_token_that_is_not_a_number_spoils_only_itself(kernels: Native) -> None:
    query = torch.randn(2, 2, 16)
    query[:, 1] = math.nan
    keys, values = torch.zeros(2, 2, 8, 2, 16)
    places = (torch.tensor([0, 1], dtype=torch.int32), torch.tensor([0, 0], dtype=torch.int32))
    out = kernels.attend(query, query, query, keys, values, *places, 1.0, 0)
    assert out[0].isfinite().all() and out[1].isnan().all()


@multiplies
@given(
    rows=st.integers(1, 40),
    inputs=st.sampled_from([2, 32, 50, 256]),
    outs=st.sampled_from([1, 17, 48, 49, 100, 200]),
    post=st.sampled_from(POSTS),
    biased=st.booleans(),
)
@hypothesis_settings(max_examples=60, deadline=None)
def test_a_linear_layer_is_that_of_torch(
    kernels: Native, rows: int, inputs: int, outs: int, post: str, biased: bool
) -> None:
    generator = torch.Generator().manual_seed(rows * inputs)
    x, weight = (torch.randn(n, inputs, generator=generator).bfloat16() for n in (rows, outs))
    bias = torch.randn(outs, generator=generator).bfloat16() if biased else None
    out = kernels.linear(x[None], kernels.pack(weight), bias, outs, POSTS.index(post))
    plain = nn.functional.linear(x.float(), weight.float(), None if bias is None else bias.float())
    expected = POST_FUNCTIONS[post](plain)
    assert out.shape == (1, rows, outs)
    assert (out[0].float() - expected).abs().max() <= 1e-2 * expected.abs().max().clamp(min=1)


@multiplies
@given(outs=st.integers(1, 200), inputs=st.sampled_from([2, 34]))
@hypothesis_settings(max_examples=20, deadline=None)
def test_a_packed_weight_can_be_looked_up(kernels: Native, outs: int, inputs: int) -> None:
    weight = torch.randn(outs, inputs, generator=torch.Generator().manual_seed(outs)).bfloat16()
    ids = torch.arange(outs).flip(0)[None]
    assert torch.equal(kernels.embed(ids, kernels.pack(weight), inputs), weight[ids])


@multiplies
@given(rows=st.integers(2, 30), at=st.integers(0, 29))
@hypothesis_settings(max_examples=20, deadline=None)
def test_a_row_has_the_same_bits_in_any_company(kernels: Native, rows: int, at: int) -> None:
    generator = torch.Generator().manual_seed(rows)
    x, weight = (torch.randn(n, 64, generator=generator).bfloat16() for n in (rows, 100))
    packed = kernels.pack(weight)
    together = kernels.linear(x, packed, None, 100, POSTS.index("gelu"))
    alone = kernels.linear(x[at % rows][None], packed, None, 100, POSTS.index("gelu"))
    assert torch.equal(together[at % rows], alone[0])


@multiplies
def test_extreme_numbers_do_not_break_the_functions_behind_a_layer(kernels: Native) -> None:
    x = torch.tensor([[1e4], [-1e4], [math.inf], [0.0], [math.nan]]).expand(5, 2).bfloat16() / 2
    packed = kernels.pack(torch.ones(1, 2).bfloat16())
    for post in POSTS[1:]:
        big, small, infinite, nothing, none = kernels.linear(x, packed, None, 1, POSTS.index(post)).flatten()
        assert big == torch.tensor(1e4).bfloat16() and infinite == math.inf
        assert abs(small) < 1e-3 and nothing == 0 and none.isnan()


@pytest.mark.parametrize("dtype", [torch.float32, pytest.param(torch.bfloat16, marks=multiplies)])
def test_linear_layers_that_share_a_weight_are_packed_too(kernels: Native, dtype: torch.dtype) -> None:
    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(16, 16, dtype=dtype), nn.Linear(16, 16, dtype=dtype)
            self.second.weight = self.first.weight

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.second(self.first(x))

    model, x = Both(), torch.randn(3, 16).to(dtype)
    with torch.inference_mode():
        expected = model(x)
        assert pack(model, kernels) == 2
        assert (model(x) - expected).abs().max() <= 3 * CLOSE[dtype]


@given(
    tokens=st.integers(1, 40),
    cut=st.integers(0, 40),
    heads=st.sampled_from([(1, 1), (4, 2), (6, 1)]),
    dim=st.sampled_from([16, 48, 64, 128, 256]),
    window=st.sampled_from([0, 9, 30]),
    dtype=st.sampled_from(list(CLOSE)),
)
@hypothesis_settings(max_examples=40, deadline=None)
def test_a_prompt_gives_the_same_bits_in_whatever_pieces_it_is_read(
    kernels: Native, tokens: int, cut: int, heads: tuple[int, int], dim: int, window: int, dtype: torch.dtype
) -> None:
    query = torch.randn(heads[0], tokens, dim).to(dtype)
    key, value = (torch.randn(heads[1], tokens, dim).to(dtype) for _ in range(2))

    def read(pieces: list[tuple[int, int]]) -> torch.Tensor:
        keys, values = (torch.zeros(2, 48, heads[1], dim, dtype=dtype) for _ in range(2))
        found = []
        for start, end in pieces:
            slots, positions = torch.ones(end - start, dtype=torch.int32), torch.arange(start, end, dtype=torch.int32)
            piece = (each[:, start:end] for each in (query, key, value))
            found.append(kernels.attend(*piece, keys, values, slots, positions, dim**-0.5, window))
        return torch.cat(found)

    cut = min(cut, tokens)
    halves = [piece for piece in ((0, cut), (cut, tokens)) if piece[0] < piece[1]]
    one_by_one = read([(at, at + 1) for at in range(tokens)])
    assert torch.equal(read([(0, tokens)]), one_by_one) and torch.equal(read(halves), one_by_one)


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty cache of built kernels; what `load` remembers is forgotten."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(native, "load", native.load.__wrapped__)
    return tmp_path / "touchstone"


def test_they_are_built_once(kernels: Native, fresh: Path) -> None:
    assert native.load() is not None
    (library,) = fresh.iterdir()
    built = library.stat().st_mtime_ns
    assert native.load() is not None
    assert [path.stat().st_mtime_ns for path in fresh.iterdir()] == [built]


def test_a_compiler_that_fails_leaves_torch_and_says_so(
    fresh: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    compiler = tmp_path / "broken"
    compiler.write_text('#!/bin/sh\n[ "$1" = --version ] && exit\necho no such header >&2\nexit 1\n')
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", str(compiler))
    assert native.load() is None
    assert "no such header" in caplog.text
    assert list(fresh.iterdir()) == []


def test_they_can_be_switched_off(monkeypatch: pytest.MonkeyPatch, fresh: Path) -> None:
    monkeypatch.setenv(compiler.OFF, "0")
    assert native.load() is None
