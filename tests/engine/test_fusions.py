"""Kernels that stand for several operators, against those operators; and what of a model they stand for."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from torch import Tensor, fx

from tests.engine.test_replay import COMPUTED_BY_KERNELS
from tests.engine.tiny import CONFIGS, make_engine
from worker.engine import native, program
from worker.engine.fusions import RMS_NORM, match
from worker.engine.native import Native

aten = torch.ops.aten


@pytest.fixture(scope="module")
def kernels() -> Native:
    found = native.load()
    if found is None or not found.multiplies:
        pytest.skip("this machine's compiler or processor has no kernels for bfloat16")
    return found


def narrow(*shape: int, scale: float = 1.0) -> Tensor:
    return (torch.randn(shape) * scale).bfloat16()


@given(
    rows=st.integers(1, 5),
    width=st.integers(1, 12).map(lambda blocks: 16 * blocks),
    sums=st.booleans(),
    centred=st.booleans(),
    seed=st.integers(0, 9),
)
@hypothesis_settings(max_examples=60, deadline=None)
def test_norms_are_those_of_models(
    kernels: Native, rows: int, width: int, sums: bool, centred: bool, seed: int
) -> None:
    torch.manual_seed(seed)
    one, other = narrow(1, rows, width, scale=3), narrow(1, rows, width)
    weight, bias = narrow(width), narrow(width)
    total = one + other if sums else one
    if centred:
        expected = torch.nn.functional.layer_norm(total, (width,), weight, bias, 1e-5)
    else:
        wide = total.float()
        expected = weight * (wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + 1e-5)).bfloat16()
    given = (weight, bias if centred else None, 1e-5)
    added, normed = kernels.add_norm(one, other, *given) if sums else (one, kernels.norm(one, *given))
    assert torch.equal(added, total)
    # Sums are taken in another order, which may turn the last bit of a rounded number.
    assert torch.allclose(normed.float(), expected.float(), rtol=2**-7, atol=2**-7)


@given(
    tokens=st.integers(1, 5),
    heads=st.integers(1, 4),
    half=st.sampled_from([1, 8, 16, 20, 32, 64]),
    lies=st.sampled_from(["by token", "by head"]),
)
@hypothesis_settings(max_examples=40, deadline=None)
def test_rotation_is_that_of_models_bit_by_bit(kernels: Native, tokens: int, heads: int, half: int, lies: str) -> None:
    x = narrow(1, heads, tokens, 2 * half)
    if lies == "by token":
        x = x.transpose(1, 2).contiguous().transpose(1, 2)
    angles = torch.arange(tokens)[:, None] / torch.pow(10.0, torch.arange(half) / half)
    angles = torch.cat((angles, angles), -1)[None]
    cosine, sine = angles.cos().bfloat16(), angles.sin().bfloat16()
    turned = torch.cat((-x[..., half:], x[..., :half]), -1)
    expected = x * cosine.unsqueeze(1) + turned * sine.unsqueeze(1)
    found = kernels.rotate(x, cosine, sine)
    assert found.shape == expected.shape and torch.equal(found, expected)


@pytest.mark.parametrize("count", [1, 15, 16, 17, 300])
def test_product_is_that_of_torch_bit_by_bit(kernels: Native, count: int) -> None:
    one, other = narrow(1, 3, count), narrow(1, 3, count)
    assert torch.equal(kernels.product(one, other), one * other)


@pytest.mark.parametrize("kind", sorted(CONFIGS))
def test_a_model_computes_the_same_with_them(kernels: Native, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fused = make_engine(kind, dtype=torch.bfloat16)._runner
    monkeypatch.setattr(program, "fuse", lambda *_: set())
    plain = make_engine(kind, dtype=torch.bfloat16)._runner
    assert (fused._tapes is not None) == (kind in COMPUTED_BY_KERNELS) and plain._tapes is None
    fused._tapes = None  # it would overwrite what it returned
    tokens = [3, 9, 4, 11, 5, 20, 8, 2, 30, 7]
    with torch.inference_mode():
        one, other = (runner._trial(tokens).float() for runner in (fused, plain))
    assert math.isfinite(float(other.norm())) and (one - other).norm() <= 0.01 * other.norm()


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
