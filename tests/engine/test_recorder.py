"""The model as a flat function: what it leaves out."""

import copy
from typing import Any

import pytest
import torch

from tasks.sampling import Sampling
from tests.engine.tiny import CONFIGS, INTERLEAVED, expect, make_engine, reference_model, run
from worker.engine import native
from worker.engine.packed import pack
from worker.engine.protocol import Request
from worker.engine.recorder import record


@pytest.mark.parametrize("kind", sorted(CONFIGS))
def test_rows_that_nobody_asks_for_end_after_the_last_attention(kind: str) -> None:
    model = copy.deepcopy(reference_model(kind))
    model.set_attn_implementation("touchstone")
    pack(model, None)
    rows: list[int] = []
    multiply = torch.ops.mkldnn._linear_pointwise.default

    def attention(query: Any, key: Any, value: Any, layer: int, *options: Any) -> Any:
        """Each token sees itself alone."""
        shares = query.shape[1] // value.shape[1]
        return value.repeat_interleave(shares, 1).transpose(1, 2).contiguous()

    def linear(x: Any, *layer: Any) -> Any:
        rows.append(x.shape[-2])
        return multiply(x, *layer)

    def forward(ids: Any, positions: Any, kept: Any) -> Any:
        mask = torch.ones(1, 1, 1, 1, dtype=torch.bool)
        options = {"position_ids": positions, "attention_mask": mask, "use_cache": False}
        return model(input_ids=ids, logits_to_keep=kept, **options).logits

    computed_by = {torch.ops.touchstone.attention.default: attention, multiply: linear}
    ids, positions = torch.tensor([[3, 4, 5, 6, 7]]), torch.arange(5)[None]
    with torch.inference_mode():
        program = record(forward, torch.device("cpu"), computed_by, None, 64).run
        whole = program(ids, positions, torch.arange(5))
        rows.clear()
        some = program(ids, positions, torch.tensor([1, 4]))
    assert torch.allclose(some[0], whole[0, [1, 4]], atol=1e-5)
    late = rows[rows.index(2) :]
    # The last layer's output of attention, what follows it, and the output layer.
    assert set(rows) == {5, 2} and set(late) == {2}
    assert len(late) == {"gpt2": 4, "gpt_neox": 4}.get(kind, 5)


@pytest.mark.parametrize("kind", sorted(INTERLEAVED))
@pytest.mark.parametrize("kernels", [None, pytest.param("native", marks=pytest.mark.needs())])
def test_a_copy_that_views_depend_on_is_recorded(kind: str, kernels: str | None) -> None:
    """Repeated angles are a copy: their source cannot be viewed as what they are."""
    engine = make_engine(kind, native=native.load() if kernels else None)
    assert engine._runner._program != engine._runner._call_model_with_cache
    prompts = ("春夏秋冬abc", "z", "夏" * 20)
    results = run(engine, [Request(prompt, prompt, Sampling(20, 0.0)) for prompt in prompts])
    assert {prompt: results[prompt].text for prompt in prompts} == {
        prompt: expect(kind, prompt, 20) for prompt in prompts
    }
