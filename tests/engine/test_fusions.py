"""Kernels that stand for several operators, against those operators; and what of a model they stand for."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from torch import Tensor, fx

from tests.engine.test_replay import COMPUTED_BY_KERNELS
from tests.engine.tiny import CONFIGS, make_engine
from worker.engine import native, recorder
from worker.engine.fusions import RMS_NORM, fuse, match
from worker.engine.native import FORMATS, Native

aten = torch.ops.aten


pytestmark = pytest.mark.needs()
LLAMA = {"lookup", "norm", "add_norm", "rotate", "product"}
FUSED = {"gpt2": {"lookup", "add_norm"}, "gpt_neox": LLAMA - {"product"}}  # others are like Llama
formats = pytest.mark.parametrize("dtype", FORMATS, ids=str)


@pytest.fixture(scope="module")
def kernels() -> Native:
    found = native.load()
    assert found is not None
    return found


def numbers(*shape: int, dtype: torch.dtype, scale: float = 1.0) -> Tensor:
    return (torch.randn(shape) * scale).to(dtype)


@formats
@given(
    rows=st.integers(1, 5),
    width=st.integers(1, 12).map(lambda blocks: 16 * blocks),
    sums=st.booleans(),
    centred=st.booleans(),
    seed=st.integers(0, 9),
)
@hypothesis_settings(max_examples=60, deadline=None)
def test_norms_are_those_of_models(
    kernels: Native, dtype: torch.dtype, rows: int, width: int, sums: bool, centred: bool, seed: int
) -> None:
    torch.manual_seed(seed)
    one, other = numbers(1, rows, width, dtype=dtype, scale=3), numbers(1, rows, width, dtype=dtype)
    weight, bias = numbers(width, dtype=dtype), numbers(width, dtype=dtype)
    total = one + other if sums else one
    if centred:
        expected = torch.nn.functional.layer_norm(total, (width,), weight, bias, 1e-5)
    else:
        wide = total.float()
        expected = weight * (wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + 1e-5)).to(dtype)
    given = (weight, bias if centred else None, 1e-5)
    added, normed = kernels.add_norm(one, other, *given) if sums else (one, kernels.norm(one, *given))
    assert torch.equal(added, total)
    # Sums are taken in another order, which may turn the last bit of a rounded number.
    last_bit = 2**-7 if dtype is torch.bfloat16 else 2**-18
    assert torch.allclose(normed.float(), expected.float(), rtol=last_bit, atol=last_bit)


@formats
@given(
    tokens=st.integers(1, 5),
    heads=st.integers(1, 4),
    half=st.sampled_from([1, 8, 16, 20, 32, 64]),
    lies=st.sampled_from(["by token", "by head"]),
)
@hypothesis_settings(max_examples=40, deadline=None)
def test_rotation_is_that_of_models(
    kernels: Native, dtype: torch.dtype, tokens: int, heads: int, half: int, lies: str
) -> None:
    x = numbers(1, heads, tokens, 2 * half, dtype=dtype)
    if lies == "by token":
        x = x.transpose(1, 2).contiguous().transpose(1, 2)
    angles = torch.arange(tokens)[:, None] / torch.pow(10.0, torch.arange(half) / half)
    angles = torch.cat((angles, angles), -1)[None]
    cosine, sine = angles.cos().to(dtype), angles.sin().to(dtype)
    turned = torch.cat((-x[..., half:], x[..., :half]), -1)
    expected = x * cosine.unsqueeze(1) + turned * sine.unsqueeze(1)
    found = kernels.rotate(x, cosine, sine)
    # Products that are not rounded may be added to one another without that rounding.
    distance = 0.0 if dtype is torch.bfloat16 else 1e-6
    assert found.shape == expected.shape and torch.allclose(found, expected, rtol=0, atol=distance)


@formats
@pytest.mark.parametrize("count", [1, 15, 16, 17, 300])
def test_product_is_that_of_torch_bit_by_bit(kernels: Native, count: int, dtype: torch.dtype) -> None:
    one, other = numbers(1, 3, count, dtype=dtype), numbers(1, 3, count, dtype=dtype)
    assert torch.equal(kernels.product(one, other), one * other)


@formats
@pytest.mark.parametrize("kind", sorted(CONFIGS))
def test_a_model_computes_the_same_with_them(
    kernels: Native, kind: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    functions: set[object] = set()

    def watch(*call: Any) -> set[Any]:
        made = fuse(*call)
        functions.update(node.target for node in call[0].graph.nodes if node.target in made)
        return made

    monkeypatch.setattr(recorder, "fuse", watch)
    fused = make_engine(kind, dtype=dtype)._runner
    monkeypatch.setattr(recorder, "fuse", lambda *_: set())
    plain = make_engine(kind, dtype=dtype)._runner
    # An activation that no layer does at once is made of products, too.
    assert {function.__name__ for function in functions} >= FUSED.get(kind, LLAMA)  # type: ignore[attr-defined]
    only_kernels = kind in COMPUTED_BY_KERNELS and dtype is torch.bfloat16 and kernels.multiplies
    assert (fused._captured is not None) == only_kernels and plain._captured is None
    fused._captured = None  # it would overwrite what it returned
    tokens = [3, 9, 4, 11, 5, 20, 8, 2, 30, 7]
    with torch.inference_mode():
        one, other = (runner._trial(tokens).float() for runner in (fused, plain))
    limit = 0.01 if dtype is torch.bfloat16 else 1e-5
    assert math.isfinite(float(other.norm())) and (one - other).norm() <= limit * other.norm()


def rms_norm(graph: fx.Graph, x: fx.Node, weight: fx.Node, *, dim: int = -1, turned: bool = False) -> fx.Node:
    def call(target: object, *args: object) -> fx.Node:
        return graph.call_function(target, args)  # type: ignore[arg-type]

    wide = call(aten._to_copy.default, x)
    mean = call(aten.mean.dim, call(aten.pow.Tensor_Scalar, wide, 2), [dim], True)
    scale = call(aten.rsqrt.default, call(aten.add.Tensor, mean, 1e-6))
    scaled = call(aten._to_copy.default, call(aten.mul.Tensor, *((scale, wide) if turned else (wide, scale))))
    return call(aten.mul.Tensor, *((scaled, weight) if turned else (weight, scaled)))


def test_a_pattern_is_found_either_way_round_and_nowhere_else() -> None:
    graph = fx.Graph()
    x, weight, other = (graph.placeholder(name) for name in ("x", "weight", "other"))
    expected = {"x": x, "weight": weight, "epsilon": 1e-6}
    assert match(RMS_NORM, rms_norm(graph, x, weight), {}) == expected
    assert match(RMS_NORM, rms_norm(graph, x, weight, turned=True), {}) == expected
    assert match(RMS_NORM, rms_norm(graph, x, weight, dim=1), {}) is None
    mixed = rms_norm(graph, x, weight)
    # The mean of something else than what it scales.
    power = next(node for node in reversed(graph.nodes) if node.target is aten.pow.Tensor_Scalar)
    power.args = (graph.call_function(aten._to_copy.default, (other,)), 2)
    assert match(RMS_NORM, mixed, {}) is None
