"""A model that continuous batching cannot run is loaded, too, and its card says why it is slow."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, MambaConfig, PretrainedConfig, RwkvConfig

from tests.engine.tiny import ALPHABET, character_tokenizer
from tests.loading.checkpoints import ask, opened

VOCABULARY = {"vocab_size": len(ALPHABET) + 2, "eos_token_id": 1, "pad_token_id": 0, "bos_token_id": 1}


@pytest.mark.parametrize(
    "config",
    [
        MambaConfig(hidden_size=32, num_hidden_layers=2, state_size=8, **VOCABULARY),
        RwkvConfig(hidden_size=32, num_hidden_layers=2, attention_hidden_size=32, context_length=512, **VOCABULARY),
    ],
    ids=["mamba", "rwkv"],
)
def test_a_recurrent_model_gives_the_tokens_of_generate(config: PretrainedConfig, tmp_path: Path) -> None:
    torch.manual_seed(2)
    model = AutoModelForCausalLM.from_config(config).eval()
    model.save_pretrained(tmp_path)
    tokenizer = character_tokenizer()
    tokenizer.save_pretrained(tmp_path)
    entry, backend = opened(tmp_path)
    facts = backend.description.facts
    assert facts["engine"] == "compatible" and facts["engine_reason"]
    assert facts["context"] == 2048
    ids = torch.tensor([tokenizer("abc")["input_ids"]])
    out = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=8, do_sample=False)
    made = tokenizer.decode(out[0, 3:], skip_special_tokens=True)
    assert ask(entry, backend, "abc")[1].text == made
