"""The same load on others: three ways of transformers, OpenVINO GenAI, vLLM. Each is made ready, then run by calls."""

import importlib
import time
from collections.abc import Callable
from typing import Any

import transformers

from tasks.errors import ConfigurationError
from worker.bench.models import open_model
from worker.bench.traffic import Load, context_of, make_prompts

Run = Callable[[], dict[str, Any]]
ONE_BY_ONE = 8  # prompts that are enough where they run one after the other
CACHE_GIB = 2
SHARE_OF_MEMORY = 0.1


class NotInstalled(ConfigurationError):
    """A program to compare with is not here; the message says how to get it."""


def pipeline(load: Load) -> Run:
    """`transformers.pipeline`, one prompt after the other."""
    model, tokenizer = open_model(load)
    pipe = transformers.pipeline("text-generation", model=model, tokenizer=tokenizer)
    prompts = make_prompts(tokenizer, load)[:ONE_BY_ONE]
    given = sum(len(ids) for ids in tokenizer(prompts, add_special_tokens=False)["input_ids"])
    options = _options(tokenizer, load)

    def run() -> int:
        made = [pipe(prompt, return_tensors=True, **options)[0]["generated_token_ids"] for prompt in prompts]
        return sum(map(len, made)) - given

    return _timed(run)


def generate(load: Load) -> Run:
    """`generate` on batches of ``concurrency`` prompts, each as slow as its longest."""
    model, tokenizer = open_model(load)
    prompts = make_prompts(tokenizer, load)
    options = _options(tokenizer, load)

    def run() -> int:
        tokens = 0
        for first in range(0, len(prompts), load.concurrency):
            batch = tokenizer(
                prompts[first : first + load.concurrency],
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


def generate_batch(load: Load) -> Run:
    """transformers' own continuous batching, started once; it chooses itself how many prompts are in flight."""
    model, tokenizer = open_model(load)
    config = transformers.GenerationConfig(**_options(tokenizer, load))
    # By default it takes nearly all memory of the machine for its cache.
    memory = transformers.ContinuousBatchingConfig(max_memory_percent=SHARE_OF_MEMORY)
    inputs = tokenizer(make_prompts(tokenizer, load), add_special_tokens=False)["input_ids"]

    def run() -> int:
        outputs = model.generate_batch(
            inputs=inputs, generation_config=config, continuous_batching_config=memory, persistent_manager=True
        )
        return sum(len(output.generated_tokens) for output in outputs.values())

    return _timed(run)


def openvino(load: Load) -> Run:
    """OpenVINO GenAI's continuous batching, in a closed loop. Raises `NotInstalled`.

    Its ``max_num_seqs`` does not bind with the default scheduler, so requests are held back here.
    """
    genai = _import("openvino_genai", "pip install openvino-genai")
    core = _import("openvino", "pip install openvino")
    numpy = _import("numpy", "pip install numpy")
    scheduler = genai.SchedulerConfig()
    scheduler.max_num_seqs, scheduler.cache_size = load.concurrency, CACHE_GIB
    precision = {"bfloat16": core.Type.bf16, "float32": core.Type.f32, "float16": core.Type.f16}[load.dtype]
    properties = {"INFERENCE_PRECISION_HINT": precision}
    if load.threads:
        properties["INFERENCE_NUM_THREADS"] = load.threads
    pipe = genai.ContinuousBatchingPipeline(load.openvino, scheduler, "CPU", properties)
    config = genai.GenerationConfig()
    config.max_new_tokens, config.ignore_eos = load.new_tokens, load.ignore_eos
    config.do_sample, config.apply_chat_template = load.temperature > 0, False
    if load.temperature > 0:
        config.temperature, config.top_p = load.temperature, load.top_p
    inputs = [core.Tensor(numpy.array([ids], dtype=numpy.int64)) for ids in _prompt_ids(load)]
    finished = genai.py_openvino_genai.GenerationStatus.FINISHED

    def run() -> int:
        waiting = list(enumerate(inputs))
        live: list[Any] = []
        tokens = 0
        while waiting or live:
            while waiting and len(live) < load.concurrency:
                live.append(pipe.add_request(*waiting.pop(0), config))
            pipe.step()
            ended = [handle for handle in live if handle.get_status() == finished]
            live = [handle for handle in live if handle.get_status() != finished]
            tokens += sum(len(handle.read_all()[0].generated_ids) for handle in ended)
        return tokens

    return _timed(run)


def vllm(load: Load) -> Run:
    """vLLM's offline engine. Raises `NotInstalled`."""
    package = _import("vllm", "pip install vllm (a build for this machine's processor)")
    engine = package.LLM(
        model=load.model,
        dtype=load.dtype,
        max_num_seqs=load.concurrency,
        max_model_len=context_of(transformers.AutoConfig.from_pretrained(load.model, local_files_only=True)),
        enable_prefix_caching=False,
        disable_log_stats=True,
    )
    settings = package.SamplingParams(
        max_tokens=load.new_tokens, temperature=load.temperature, top_p=load.top_p, ignore_eos=load.ignore_eos
    )
    inputs = [{"prompt_token_ids": ids} for ids in _prompt_ids(load)]

    def run() -> int:
        return sum(len(out.outputs[0].token_ids) for out in engine.generate(inputs, settings, use_tqdm=False))

    return _timed(run)


BASELINES: dict[str, Callable[[Load], Run]] = {
    "pipeline": pipeline,
    "generate": generate,
    "generate_batch": generate_batch,
    "openvino": openvino,
    "vllm": vllm,
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


def _prompt_ids(load: Load) -> list[list[int]]:
    tokenizer = transformers.AutoTokenizer.from_pretrained(load.model, local_files_only=True)
    return list(tokenizer(make_prompts(tokenizer, load), add_special_tokens=False)["input_ids"])


def _import(name: str, advice: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise NotInstalled(f"{name} is not installed here, so it cannot be compared: {advice}") from error
