"""Tiny models of every family that people know, with random weights, as transformers saves them.

Windows and chunks of attention are shorter than the texts that are made, experts fewer than they were: what is special
in a family must show within some forty tokens.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

VOCABULARY = 500
CONTEXT = 128
FIRST_CHARACTER = 0x4E00
WINDOW = 9
COMMON: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": CONTEXT,
    "tie_word_embeddings": False,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": None,
}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 48}
ROUTED = {"n_routed_experts": 4, "num_experts_per_tok": 2, "n_shared_experts": 1, "moe_intermediate_size": 48}
GROUPED = {"n_group": 1, "topk_group": 1, "first_k_dense_replace": 1}
LATENT = {"q_lora_rank": 32, "kv_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 16, "v_head_dim": 16}
LATENT |= {"head_dim": 8, "num_key_value_heads": 4}
SLIDING = {"sliding_window": WINDOW, "layer_types": ["sliding_attention", "full_attention"]}
MIXED = {"layer_types": ["linear_attention", "full_attention"]}
DELTA = {"linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 16, "linear_value_head_dim": 16}
STATES = {"mamba_n_heads": 8, "mamba_d_head": 16, "mamba_d_state": 16, "mamba_n_groups": 1, "mamba_chunk_size": 8}


@dataclass(frozen=True)
class Family:
    """Models that transformers computes by the same code. ``settings`` make the tiny one, beside those in ``COMMON``.

    Settings of ``COMMON`` that are in ``without`` are left to the configuration class. ``cached`` is false where
    transformers' generate itself fails with a cache.
    """

    name: str
    examples: str
    model_type: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    without: tuple[str, ...] = ()
    cached: bool = True

    def config(self) -> Any:
        common = {name: value for name, value in COMMON.items() if name not in self.without}
        return AutoConfig.for_model(self.model_type, **common | dict(self.settings))

    def save(self, folder: Path, seed: int, factor: float) -> None:
        """Write a model with random weights, the matrices ``factor`` times as large as usual."""
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(self.config()).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.dim() > 1:
                    parameter.mul_(factor)
        model.save_pretrained(folder)


FAMILIES = (
    Family("gpt2", "GPT-2, DistilGPT2, Wenzhong, CPM", "gpt2"),
    Family("gpt_neox", "Pythia, GPT-NeoX-20B, Dolly", "gpt_neox"),
    Family("gpt_bigcode", "StarCoder, SantaCoder", "gpt_bigcode"),
    Family("gptj", "GPT-J-6B", "gptj", {"rotary_dim": 8}),
    Family("gpt_neo", "GPT-Neo", "gpt_neo", {"attention_types": [[["global", "local"], 1]], "window_size": WINDOW}),
    Family("codegen", "CodeGen", "codegen", {"rotary_dim": 8}),
    Family("openai-gpt", "GPT-1", "openai-gpt"),
    Family("ctrl", "CTRL", "ctrl"),
    Family("opt", "OPT, Galactica", "opt", {"ffn_dim": 96, "word_embed_proj_dim": 64}),
    Family("xglm", "XGLM", "xglm", {"ffn_dim": 96, "num_layers": 2, "d_model": 64, "attention_heads": 4}),
    Family("biogpt", "BioGPT", "biogpt"),
    Family("bloom", "BLOOM, BLOOMZ", "bloom"),
    Family("mpt", "MPT", "mpt", {"d_model": 64, "n_heads": 4, "n_layers": 2, "max_seq_len": CONTEXT}),
    Family("falcon", "Falcon 7B", "falcon", without=("head_dim",)),
    Family("falcon_alibi", "Falcon-RW", "falcon", {"alibi": True, "multi_query": False}, without=("head_dim",)),
    Family("falcon_new", "Falcon 40B, Falcon 2", "falcon", {"new_decoder_architecture": True}, without=("head_dim",)),
    Family("llama", "Llama 2, TinyLlama, Yi, DeepSeek 7B", "llama"),
    Family(
        "llama3",
        "Llama 3.1, 3.2 and 3.3, SmolLM2, Falcon 3",
        "llama",
        {
            "tie_word_embeddings": True,
            "rope_parameters": {
                "rope_type": "llama3",
                "rope_theta": 10000.0,
                "factor": 4.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 32,
            },
        },
    ),
    Family(
        "llama4",
        "Llama 4 Scout and Maverick, text",
        "llama4_text",
        {"attention_chunk_size": 8, "num_local_experts": 4, "intermediate_size_mlp": 96, "no_rope_layers": [1, 0]},
    ),
    Family("mistral", "Mistral 7B, Zephyr", "mistral", {"sliding_window": WINDOW}),
    Family("ministral", "Ministral 8B", "ministral", SLIDING),
    Family("mixtral", "Mixtral 8x7B", "mixtral", {"num_local_experts": 4, "num_experts_per_tok": 2}),
    Family("qwen2", "Qwen 1.5, 2 and 2.5, QwQ", "qwen2"),
    Family("qwen3", "Qwen 3", "qwen3"),
    Family("qwen2_moe", "Qwen1.5-MoE, Qwen2-57B-A14B", "qwen2_moe", EXPERTS | {"shared_expert_intermediate_size": 48}),
    Family("qwen3_moe", "Qwen3-30B-A3B", "qwen3_moe", EXPERTS),
    Family("qwen3_next", "Qwen3-Next", "qwen3_next", EXPERTS | MIXED | DELTA | {"shared_expert_intermediate_size": 48}),
    Family("qwen3_5", "Qwen 3.5", "qwen3_5_text", MIXED | DELTA),
    Family(
        "qwen3_5_moe",
        "Qwen 3.5 MoE",
        "qwen3_5_moe_text",
        EXPERTS | MIXED | DELTA | {"shared_expert_intermediate_size": 48},
    ),
    Family("gemma", "Gemma 1", "gemma"),
    Family("gemma2", "Gemma 2", "gemma2", SLIDING),
    Family("gemma3", "Gemma 3", "gemma3_text", SLIDING),
    Family(
        "gemma3n",
        "Gemma 3n",
        "gemma3n_text",
        {
            "num_hidden_layers": 4,
            "num_kv_shared_layers": 2,
            "layer_types": ["sliding_attention", "full_attention"] * 2,
            "sliding_window": WINDOW,
            "intermediate_size": [96] * 4,
            "activation_sparsity_pattern": [0.0] * 4,
            "vocab_size_per_layer_input": VOCABULARY,
            "hidden_size_per_layer_input": 16,
            "laurel_rank": 8,
        },
    ),
    Family(
        "gemma4",
        "Gemma 4",
        "gemma4_text",
        SLIDING | {"global_head_dim": 16, "vocab_size_per_layer_input": VOCABULARY, "hidden_size_per_layer_input": 16},
    ),
    Family("phi", "Phi 1, 1.5 and 2", "phi", without=("head_dim",)),
    Family("phi3", "Phi 3 and 3.5, Phi 4", "phi3", {"sliding_window": WINDOW}),
    Family("phi4_mini", "Phi-4-mini with positions as trained", "phi3", {"partial_rotary_factor": 0.5}),
    Family(
        "phi3_long",
        "Phi-3-mini-128k, Phi-3.5-mini, Phi-4-mini",
        "phi3",
        {
            "original_max_position_embeddings": 16,
            "rope_parameters": {
                "rope_type": "longrope",
                "rope_theta": 10000.0,
                "short_factor": [1.0] * 8,
                "long_factor": [1.5] * 8,
                "original_max_position_embeddings": 16,
            },
        },
    ),
    Family(
        "dynamic",
        "Llama and InternLM stretched by dynamic NTK",
        "llama",
        {
            "max_position_embeddings": 16,
            "rope_parameters": {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0},
        },
    ),
    Family(
        "yarn",
        "Qwen 2.5 and 3 stretched by YaRN",
        "qwen3",
        {
            "rope_parameters": {
                "rope_type": "yarn",
                "rope_theta": 10000.0,
                "factor": 4.0,
                "original_max_position_embeddings": 16,
            }
        },
    ),
    Family("phimoe", "Phi-3.5-MoE", "phimoe", {"num_local_experts": 4}),
    Family("internlm3", "InternLM 3", "internlm3"),
    Family("smollm3", "SmolLM 3", "smollm3", {"no_rope_layers": [1, 0]}),
    Family("olmo", "OLMo 1", "olmo"),
    Family("olmo2", "OLMo 2", "olmo2"),
    Family("olmo3", "OLMo 3", "olmo3", SLIDING),
    Family("olmoe", "OLMoE", "olmoe", EXPERTS),
    Family("granite", "Granite 3", "granite"),
    Family("granitemoe", "Granite 3 MoE", "granitemoe", {"num_local_experts": 4, "num_experts_per_tok": 2}),
    Family(
        "granitemoehybrid",
        "Granite 4 hybrid",
        "granitemoehybrid",
        STATES
        | {"layer_types": ["mamba", "attention"], "num_local_experts": 4, "num_experts_per_tok": 2}
        | {"shared_intermediate_size": 96},
    ),
    Family("hunyuan", "Hunyuan dense", "hunyuan_v1_dense"),
    Family("hunyuan_moe", "Hunyuan-A13B", "hunyuan_v1_moe", {"num_experts": 4, "moe_topk": [2, 2]}),
    Family("ernie4_5", "ERNIE 4.5", "ernie4_5"),
    Family(
        "ernie4_5_moe",
        "ERNIE 4.5 MoE",
        "ernie4_5_moe",
        {"moe_num_experts": 4, "moe_k": 2, "moe_intermediate_size": 48, "moe_num_shared_experts": 1},
    ),
    Family("glm", "GLM-4-9B", "glm"),
    Family("glm4", "GLM-4-0414", "glm4"),
    Family("glm4_moe", "GLM 4.5", "glm4_moe", ROUTED | GROUPED),
    Family("cohere", "Command R, Aya 23", "cohere"),
    Family("cohere2", "Command R7B, Command A", "cohere2", SLIDING),
    Family("deepseek_v2", "DeepSeek V2, V2-Lite", "deepseek_v2", ROUTED | GROUPED | LATENT),
    Family("deepseek_v3", "DeepSeek V3, R1, Kimi K2", "deepseek_v3", ROUTED | GROUPED | LATENT),
    Family(
        "deepseek_v32",
        "DeepSeek V3.2",
        "deepseek_v32",
        ROUTED | GROUPED | LATENT | {"index_topk": 8, "index_n_heads": 4, "index_head_dim": 16},
    ),
    Family("minicpm3", "MiniCPM 3", "minicpm3", LATENT),
    Family("gpt_oss", "gpt-oss 20B and 120B", "gpt_oss", SLIDING | {"num_local_experts": 4, "num_experts_per_tok": 2}),
    Family("lfm2", "LFM 2", "lfm2", {"layer_types": ["conv", "full_attention"], "block_multiple_of": 8}),
    Family(
        "lfm2_moe",
        "LFM2-8B-A1B",
        "lfm2_moe",
        EXPERTS | {"layer_types": ["conv", "full_attention"], "num_dense_layers": 1},
    ),
    Family("rwkv", "RWKV 4", "rwkv", {"context_length": CONTEXT}),
    Family("mamba", "Mamba", "mamba"),
    Family("mamba2", "Mamba 2, Codestral Mamba", "mamba2", {"num_heads": 8, "n_groups": 1, "state_size": 16}),
    Family("falcon_mamba", "Falcon Mamba", "falcon_mamba"),
    Family("falcon_h1", "Falcon-H1", "falcon_h1", STATES | {"mamba_d_ssm": 128}),
    Family(
        "jamba",
        "Jamba",
        "jamba",
        {"attn_layer_offset": 1, "attn_layer_period": 2, "num_experts": 4, "use_mamba_kernels": False},
    ),
    Family("bamba", "Bamba", "bamba", STATES | {"attn_layer_indices": [1]}),
    Family(
        "zamba2",
        "Zamba 2",
        "zamba2",
        {"layers_block_type": ["mamba", "hybrid"], "n_mamba_heads": 8, "mamba_d_state": 16, "use_mamba_kernels": False},
        without=("head_dim",),
    ),
    Family(
        "recurrent_gemma",
        "RecurrentGemma",
        "recurrent_gemma",
        {"block_types": ["recurrent", "attention"], "lru_width": 64, "attention_window_size": WINDOW},
    ),
    Family(
        "nemotron_h",
        "Nemotron-H, Nemotron Nano",
        "nemotron_h",
        {"mamba_num_heads": 8, "mamba_head_dim": 16, "ssm_state_size": 16, "n_groups": 1, "chunk_size": 8},
    ),
    Family("nemotron", "Nemotron 4, Minitron", "nemotron"),
    Family("stablelm", "StableLM 2, StableCode", "stablelm"),
    Family("starcoder2", "StarCoder 2", "starcoder2", {"sliding_window": WINDOW}),
    Family("exaone4", "EXAONE 4", "exaone4", SLIDING),
    Family("seed_oss", "Seed-OSS", "seed_oss"),
    Family(
        "minimax",
        "MiniMax-Text-01",
        "minimax",
        MIXED | {"num_local_experts": 4, "num_experts_per_tok": 2, "block_size": 8},
    ),
    Family("kimi_linear", "Kimi Linear", "kimi_linear", EXPERTS | MIXED | LATENT),
    Family("dots1", "dots.llm1", "dots1", ROUTED | GROUPED | {"layer_types": ["full_attention"] * 2}),
    Family("persimmon", "Persimmon", "persimmon"),
    Family("apertus", "Apertus", "apertus"),
    Family("arcee", "AFM-4.5B", "arcee"),
    Family("helium", "Helium 1", "helium"),
    Family("bitnet", "BitNet b1.58", "bitnet"),
    Family("jetmoe", "JetMoe", "jetmoe", {"num_local_experts": 4, "kv_channels": 16}),
    Family("xlstm", "xLSTM 7B", "xlstm", {"num_heads": 4, "chunk_size": 8}, without=("head_dim",), cached=False),
    Family("nanochat", "nanochat", "nanochat"),
    Family("doge", "Doge", "doge", {"sliding_window": WINDOW, "keep_window_size": 64}),
    Family("cpmant", "CPM-Ant", "cpmant", {"prompt_types": 4, "prompt_length": 4, "dim_ff": 96, "dim_head": 16}),
    Family("hrm_text", "Hierarchical Reasoning Model, text", "hrm_text"),
    Family("gpt_neox_japanese", "GPT-NeoX Japanese", "gpt_neox_japanese"),
    Family("granite_swa", "Granite with windows and sinks", "granite_swa"),
    Family("diffllama", "DiffLlama", "diffllama"),
    Family("deepseek_v4", "DeepSeek V4", "deepseek_v4"),
)


def character_tokenizer() -> PreTrainedTokenizerFast:
    """One token a Chinese character; none is special, so that a text says which tokens it was made of."""
    words = {chr(FIRST_CHARACTER + token): token for token in range(VOCABULARY)}
    made = Tokenizer(models.WordLevel(words, unk_token=chr(FIRST_CHARACTER)))
    made.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    made.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=made)
