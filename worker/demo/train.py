"""Train a demo model: a small character-level GPT-2 that answers 写一首关于X的诗 with a quatrain about X.

    python -m worker.demo.train --corpus poems.jsonl.gz --size large --minutes 80 --out worker/demo/poet-large

Hidden matrices are trained with Muon, everything else with AdamW; the loss is taken on the answer only. The
learning rate follows the clock, so any number of minutes ends with a finished decay. The checkpoint with the
lowest held-out loss is kept. Runs on a GPU when there is one.
"""

import argparse
import json
import math
import random
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from worker.demo.corpus import END, PAD, UNKNOWN, Quatrain, build_vocabulary, prompt_for, read_quatrains
from worker.demo.muon import Muon

SIZES = {"large": {"n_embd": 256, "n_layer": 4, "n_head": 8}, "small": {"n_embd": 96, "n_layer": 4, "n_head": 4}}
CONTEXT = 256
HELD_OUT = 2000
WARM_UP = 0.02
DECAY = 0.45


@dataclass(frozen=True)
class Batch:
    """Token ids ``[rows, length]``, positions of the same shape, and labels (-100 where no loss is taken)."""

    ids: Tensor
    positions: Tensor
    labels: Tensor


def build_tokenizer(vocabulary: list[str]) -> PreTrainedTokenizerFast:
    """One token a character; characters outside ``vocabulary`` become the unknown token."""
    tokenizer = Tokenizer(models.WordLevel({token: i for i, token in enumerate(vocabulary)}, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        unk_token=UNKNOWN,
        eos_token=END,
        model_max_length=CONTEXT,
        clean_up_tokenization_spaces=False,
    )


def make_batch(poems: list[Quatrain], vocabulary: dict[str, int], dice: random.Random, shift: bool) -> Batch:
    """Pair every poem with a prompt. With ``shift``, positions start anywhere in the context, so all get trained."""
    unknown, end = vocabulary[UNKNOWN], vocabulary[END]
    rows = []
    for poem in poems:
        prompt = [vocabulary.get(c, unknown) for c in prompt_for(poem, dice) + "\n"]
        rows.append((prompt, [*(vocabulary[c] for c in poem.text), end]))
    length = max(len(prompt) + len(answer) for prompt, answer in rows)
    ids = torch.full((len(rows), length), vocabulary[PAD])
    labels = torch.full((len(rows), length), -100)
    for row, (prompt, answer) in enumerate(rows):
        stop = len(prompt) + len(answer)
        ids[row, :stop] = torch.tensor(prompt + answer)
        labels[row, len(prompt) : stop] = torch.tensor(answer)
    first = dice.randrange(CONTEXT - length) if shift else 0
    positions = torch.arange(first, first + length).expand(len(rows), -1)
    return Batch(ids, positions, labels)


def answer_loss(model: GPT2LMHeadModel, batch: Batch, device: str) -> Tensor:
    """Mean negative log-likelihood, in nats, of the answers' characters (padding follows the text: no mask needed)."""
    half = device != "cpu" or torch.ops.mkldnn._is_mkldnn_bf16_supported()
    with torch.autocast(device, torch.bfloat16, enabled=half):
        hidden = model.transformer(batch.ids.to(device), position_ids=batch.positions.to(device)).last_hidden_state
        labels = batch.labels[:, 1:].to(device)
        wanted = labels != -100
        logits = model.lm_head(hidden[:, :-1][wanted])
    return nn.functional.cross_entropy(logits.float(), labels[wanted])


def optimizers_for(model: GPT2LMHeadModel) -> list[torch.optim.Optimizer]:
    """Muon for the layers' matrices, AdamW for embeddings, norms and biases."""
    matrices = [p for p in model.transformer.h.parameters() if p.ndim == 2]
    chosen = {id(p) for p in matrices}
    rest = [p for p in model.parameters() if id(p) not in chosen]
    return [
        Muon(matrices, lr=0.02),
        torch.optim.AdamW(rest, lr=3e-3, betas=(0.9, 0.98), weight_decay=0.01),
    ]


def rate_at(progress: float) -> float:
    """Factor on the learning rate at ``progress`` in [0, 1]: warm up, hold, fall linearly to zero."""
    return max(0.0, min(1.0, progress / WARM_UP, (1 - progress) / DECAY))


@torch.no_grad()
def held_out_loss(model: GPT2LMHeadModel, batches: list[Batch], device: str) -> float:
    model.eval()
    loss = sum(float(answer_loss(model, batch, device)) for batch in batches) / len(batches)
    model.train()
    return loss


def batches_of(
    poems: list[Quatrain], size: int, vocabulary: dict[str, int], dice: random.Random
) -> list[list[Quatrain]]:
    """Shuffle ``poems`` into groups of one line width each, so that a batch holds little padding."""
    groups = []
    for width in (5, 7):
        same = [poem for poem in poems if poem.width == width]
        dice.shuffle(same)
        groups += [same[i : i + size] for i in range(0, len(same), size)]
    dice.shuffle(groups)
    return groups


def save(model: GPT2LMHeadModel, tokenizer: PreTrainedTokenizerFast, out: Path, facts: dict[str, object]) -> None:
    """Write weights as float16 (half the bytes in the repository), the tokenizer and ``training.json``."""
    half = GPT2LMHeadModel(model.config)
    half.load_state_dict(model.state_dict())
    half.half().save_pretrained(out)
    tokenizer.save_pretrained(out)
    (out / "training.json").write_text(json.dumps(facts, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def train(corpus: Path, size: str, minutes: float, out: Path, batch_size: int, seed: int) -> None:
    torch.manual_seed(seed)
    dice = random.Random(seed)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    poems = read_quatrains(corpus)
    tokens = build_vocabulary(poems, at_least=12)
    vocabulary = {token: i for i, token in enumerate(tokens)}
    poems = [poem for poem in poems if all(c in vocabulary for c in poem.text)]
    dice.shuffle(poems)
    held_out, poems = poems[:HELD_OUT], poems[HELD_OUT:]
    checks = [make_batch(g, vocabulary, dice, False) for g in batches_of(held_out, 100, vocabulary, random.Random(0))]
    config = GPT2Config(
        vocab_size=len(tokens),
        n_positions=CONTEXT,
        **SIZES[size],
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=None,
        eos_token_id=vocabulary[END],
        pad_token_id=vocabulary[PAD],
    )
    model = GPT2LMHeadModel(config).to(device)
    optimizers = optimizers_for(model)
    base_rates = [optimizer.param_groups[0]["lr"] for optimizer in optimizers]
    tokenizer = build_tokenizer(tokens)
    print(f"{len(poems)} poems, {len(tokens)} tokens, {model.num_parameters():,} parameters, {device}", flush=True)

    started, step, best, epoch = time.monotonic(), 0, math.inf, 0
    progress = 0.0
    while progress < 1:
        epoch += 1
        for group in batches_of(poems, batch_size, vocabulary, dice):
            progress = (time.monotonic() - started) / (60 * minutes)
            for optimizer, rate in zip(optimizers, base_rates, strict=True):
                optimizer.param_groups[0]["lr"] = rate * rate_at(progress)
            loss = answer_loss(model, make_batch(group, vocabulary, dice, shift=step % 8 == 7), device)
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad()
            step += 1
            if step % 100 == 0 or progress >= 1:
                nats = held_out_loss(model, checks, device)
                print(f"{step=} {epoch=} {progress=:.3f} loss={float(loss):.3f} held_out={nats:.4f}", flush=True)
                if nats < best:
                    best = nats
                    facts = {
                        "corpus": corpus.name,
                        "poems": len(poems),
                        "held_out_poems": len(held_out),
                        "parameters": model.num_parameters(),
                        "seed": seed,
                        "steps": step,
                        "batch_size": batch_size,
                        "minutes": round(progress * minutes, 1),
                        "device": device,
                        "torch": torch.__version__,
                        "held_out_bits_per_character": round(nats / math.log(2), 3),
                    }
                    save(model, tokenizer, out, facts)
            if progress >= 1:
                break


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--size", choices=SIZES, required=True)
    parser.add_argument("--minutes", type=float, default=80)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--seed", type=int, default=20260101)
    options = parser.parse_args()
    train(options.corpus, options.size, options.minutes, options.out, options.batch_size, options.seed)


if __name__ == "__main__":
    main()
