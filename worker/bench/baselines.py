"""The same load on others: three ways of transformers, OpenVINO GenAI, vLLM."""

import importlib
import time
from collections.abc import Callable
from typing import Any

import transformers

from worker.bench.load import Load

Run = Callable[[], dict[str, Any]]
ONE_BY_ONE = 8  # prompts that are enough where they run one after the other


class NotInstalled(Exception):
    """A program to compare with is not here; the message says how to get it."""


def pipeline(model: Any, tokenizer: Any, load: Load) -> Run:
    """`transformers.pipeline`, one prompt after the other."""
    pipe = transformers.pipeline("text-generation", model=model, tokenizer=tokenizer)
    options = _options(tokenizer, load)

    def run() -> int:
        prompts = load.prompts[:ONE_BY_ONE]
        return sum(
            len(pipe(prompt, return_tensors=True, **options)[0]["generated_token_ids"]) for prompt in prompts
        ) - (_prompt_tokens(tokenizer, prompts))

    return _timed(run)


def generate(model: Any, tokenizer: Any, load: Load) -> Run:
    """`generate` on batches of ``concurrency`` prompts, each as slow as its longest."""
    options = _options(tokenizer, load)

    def run() -> int:
        tokens = 0
        for first in range(0, len(load.prompts), load.concurrency):
            batch = tokenizer(
                list(load.prompts[first : first + load.concurrency]),
                padding=True,
                padding_side="left",
                add_special_tokens=False,
                return_tensors="pt",
            ).to(model.device)
            out = model.generate(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], **options)
            made = out[:, batch["input_ids"].shape[1] :]
            tokens += made.numel() if load.ignore_eos else int((made != tokenizer.pad_token_id).sum())
        return tokens

    return _timed(run)


def generate_batch(model: Any, tokenizer: Any, load: Load) -> Run:
    """transformers' own continuous batching, started once."""
    options = _options(tokenizer, load)
    config = transformers.GenerationConfig(**options)
    inputs = [tokenizer(prompt, add_special_tokens=False)["input_ids"] for prompt in load.prompts]

    def run() -> int:
        outputs = model.generate_batch(inputs=inputs, generation_config=config, persistent_manager=True)
        return sum(len(output.generated_tokens) for output in outputs.values())

    return _timed(run)


def openvino(folder: str, load: Load) -> Run:
    """OpenVINO GenAI's continuous batching. Raises `NotInstalled`."""
    genai = _import("openvino_genai", "pip install openvino-genai")
    scheduler = genai.SchedulerConfig()
    scheduler.max_num_seqs = load.concurrency
    pipe = genai.ContinuousBatchingPipeline(folder, scheduler, "CPU")
    config = genai.GenerationConfig()
    config.max_new_tokens = load.new_tokens
    config.ignore_eos = load.ignore_eos
    config.do_sample = load.temperature > 0

    def run() -> int:
        results = pipe.generate(list(load.prompts), [config] * len(load.prompts))
        return len(results) * load.new_tokens

    return _timed(run)


def vllm(folder: str | None, load: Load) -> Run:
    """vLLM's offline engine. Raises `NotInstalled`."""
    package = _import("vllm", "pip install vllm")
    if folder is None:
        raise NotInstalled("vLLM reads a folder: give --model instead of --random-weights.")
    engine = package.LLM(model=folder, max_num_seqs=load.concurrency, enforce_eager=True)
    settings = package.SamplingParams(
        max_tokens=load.new_tokens, temperature=load.temperature, top_p=load.top_p, ignore_eos=load.ignore_eos
    )

    def run() -> int:
        return sum(len(out.outputs[0].token_ids) for out in engine.generate(list(load.prompts), settings))

    return _timed(run)


TRANSFORMERS: dict[str, Callable[[Any, Any, Load], Run]] = {
    "pipeline": pipeline,
    "generate": generate,
    "generate_batch": generate_batch,
}


def _timed(run: Callable[[], int]) -> Run:
    def timed() -> dict[str, Any]:
        started = time.monotonic()
        tokens = run()
        seconds = time.monotonic() - started
        if tokens == 0:
            raise RuntimeError("What the engine is compared with made no token; its own log says why.")
        return {"tokens": tokens, "seconds": seconds, "tokens_per_second": tokens / seconds}

    return timed


def _options(tokenizer: Any, load: Load) -> dict[str, Any]:
    options: dict[str, Any] = {"max_new_tokens": load.new_tokens, "do_sample": load.temperature > 0}
    options["pad_token_id"] = tokenizer.pad_token_id or 0
    if load.temperature > 0:
        options |= {"temperature": load.temperature, "top_p": load.top_p, "top_k": 0}
    if load.ignore_eos:
        options["eos_token_id"] = -1
    return options


def _prompt_tokens(tokenizer: Any, prompts: tuple[str, ...]) -> int:
    return sum(len(tokenizer(prompt, add_special_tokens=False)["input_ids"]) for prompt in prompts)


def _import(name: str, advice: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise NotInstalled(f"{name} is not installed, so it cannot be compared: {advice}") from error
