"""Measure the engine: ``python -m worker.bench engine --random-weights gpt2:102m``. The last line is JSON."""

import argparse
import json
import sys
from collections.abc import Callable
from typing import Any

import torch

from worker.bench import baselines
from worker.bench.load import Load, make_prompts
from worker.bench.measure import environment, measure_engine, median_by_speed, peak_rss
from worker.bench.models import SIZES, open_model

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m worker.bench engine", description=__doc__)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--model", metavar="DIR", help="a model as transformers saves it")
    source.add_argument("--random-weights", choices=SIZES, help="a model of this shape, with random weights")
    parser.add_argument("--requests", type=int, default=128)
    parser.add_argument("--concurrency", type=int, default=64, help="requests in flight, and slots of the engine")
    parser.add_argument("--prompt-tokens", type=int, default=20)
    parser.add_argument("--new-tokens", type=int, default=64)
    parser.add_argument("--dtype", choices=DTYPES, default="float32")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=0, help="threads of torch; 0 leaves its choice")
    parser.add_argument("--temperature", type=float, default=0.0)
    parser.add_argument("--top-p", type=float, default=1.0)
    parser.add_argument("--ignore-eos", action="store_true", help="always make all new tokens")
    parser.add_argument("--deterministic", action="store_true")
    parser.add_argument("--rounds", type=_at_least_one, default=1, help="after one to warm up, all by turns")
    parser.add_argument("--baseline", nargs="*", choices=sorted(baselines.TRANSFORMERS), default=[])
    parser.add_argument("--openvino", metavar="DIR", help="the same model as OpenVINO GenAI reads it")
    parser.add_argument("--vllm", action="store_true", help="the same model (--model) in vLLM")
    parser.add_argument("--json", action="store_true", help="nothing but the last line")
    return parser.parse_args(arguments)


def _at_least_one(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is less than 1")
    return number


def main(arguments: list[str]) -> int:
    options = parse(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    say: Callable[[str], Any] = (lambda line: None) if options.json else (lambda line: sys.stdout.write(line + "\n"))
    model, tokenizer = open_model(options.model or options.random_weights, DTYPES[options.dtype], options.device)
    parameters = model.num_parameters()
    load = Load(
        prompts=make_prompts(tokenizer, options.requests, options.prompt_tokens),
        concurrency=options.concurrency,
        new_tokens=options.new_tokens,
        temperature=options.temperature,
        top_p=options.top_p,
        ignore_eos=options.ignore_eos,
    )
    run_engine = measure_engine(model, tokenizer, load, deterministic=options.deterministic)
    runs: dict[str, Callable[[], dict[str, Any]]] = {"engine": run_engine}
    measured: dict[str, list[dict[str, Any]]] = {"engine": [run_engine()]}
    memory = peak_rss()
    try:
        if options.baseline:
            plain, _ = open_model(options.model or options.random_weights, DTYPES[options.dtype], options.device)
            runs |= {name: baselines.TRANSFORMERS[name](plain, tokenizer, load) for name in options.baseline}
        if options.openvino:
            runs["openvino"] = baselines.openvino(options.openvino, load)
        if options.vllm:
            runs["vllm"] = baselines.vllm(options.model, load)
    except baselines.NotInstalled as error:
        sys.stderr.write(f"{error}\n")
        return 2
    for name, run in runs.items():
        if name != "engine":
            run()
    for _ in range(options.rounds):
        for name, run in runs.items():
            measured.setdefault(name, []).append(run())
            say(f"{name}: {measured[name][-1]['tokens_per_second']:.1f} tokens/s")
    # The first run warmed everything up; it is not counted.
    measured["engine"] = measured["engine"][1:]
    best = {name: median_by_speed(results) for name, results in measured.items()}
    outcome = best.pop("engine")
    outcome["peak_rss_bytes"] = memory
    outcome["baselines"] = best
    outcome["ratios"] = {name: outcome["tokens_per_second"] / run["tokens_per_second"] for name, run in best.items()}
    outcome["run"] = environment(parameters, options)
    sys.stdout.write(json.dumps(outcome, sort_keys=True) + "\n")
    return 0
