"""Golden data for the C++ engine: greedy continuations of the exported weights, computed in float32.

Weights are the FP8 codes times their scales without further rounding; the expanded form of MLA.
`margins` holds top-1 minus top-2 logit of each step: a BF16 engine may differ where it is small.
"""

import argparse
import json
import random
from pathlib import Path

import torch

from corpus import BOS, CorpusMaker, chat_prompt, raw_problem_prompt
from evaluate import SEED_REQUESTS, few_shot_prefix
from exported import EOS_ID, load_exported, next_logits
from heldout import held_out_keys, held_out_problems
from model import NanoModel

STEPS, TOP = 64, 5


def golden_prompts() -> list[tuple[str, str, str]]:
    """(name, form, full prompt text with BOS), from a few tokens to about three hundred."""
    problems = {p.key.split(":")[0] + p.language: p for p in held_out_problems()}
    shots = few_shot_prefix(random.Random("golden"), CorpusMaker(held_out_keys()), 4)
    return [
        ("hello_chat", "chat", chat_prompt("你好")),
        ("capitals_en_raw", "raw", BOS + SEED_REQUESTS[0]),
        ("capitals_zh_chat", "chat", chat_prompt(SEED_REQUESTS[1])),
        ("library_en_chat", "chat", chat_prompt(problems["libraryen"].question)),
        ("two_kinds_zh_raw", "raw", raw_problem_prompt(problems["two_kindszh"].question)),
        ("egg_cartons_en_few_shot", "raw", raw_problem_prompt(problems["egg_cartonsen"].question, shots)),
    ]


@torch.no_grad()
def mtp_drafts(model: NanoModel, row: list[int], start: int, known_tokens: int) -> list[int]:
    """The MTP layer's greedy guess of each continuation token from the second on, given the true tokens before it."""
    tokens = torch.tensor([row])
    hidden = model.mtp_hidden_states(model.hidden_states(tokens, torch.float32), tokens)
    logits = model.lm_head(hidden[0, start - 1 :])[:, :known_tokens]
    return logits.argmax(-1).tolist()[: len(row) - start - 1]


def continuation(model: NanoModel, prompt_ids: list[int], known_tokens: int) -> dict[str, object]:
    row, margins, tops = list(prompt_ids), [], []
    while len(row) - len(prompt_ids) < STEPS and (len(row) == len(prompt_ids) or row[-1] != EOS_ID):
        logits = next_logits(model, [row], torch.float32, known_tokens)[0]
        logprobs, ids = torch.log_softmax(logits, -1).topk(TOP)
        margins.append(round(float(logprobs[0] - logprobs[1]), 4))
        tops.append([[token, round(value, 4)] for token, value in zip(ids.tolist(), logprobs.tolist())])
        row.append(ids[0].item())
    return {"ids": row[len(prompt_ids) :], "finish_reason": "stop" if row[-1] == EOS_ID else "length",
            "margins": margins, "top_logprobs": tops, "mtp_drafts": mtp_drafts(model, row, len(prompt_ids), known_tokens)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=Path("models/nano"))
    folder = parser.parse_args().model
    model, tokenizer = load_exported(folder, torch.float32)
    cases = []
    for name, form, prompt in golden_prompts():
        prompt_ids = tokenizer.encode(prompt, add_special_tokens=False).ids
        found = continuation(model, prompt_ids, tokenizer.get_vocab_size())
        text = tokenizer.decode(found["ids"], skip_special_tokens=False)
        cases.append({"name": name, "form": form, "prompt": prompt, "prompt_ids": prompt_ids, "text": text} | found)
        print(name, len(prompt_ids), "+", len(found["ids"]), "smallest margin", min(found["margins"]), repr(text))
    rules = {"precision": "float32", "masked_ids_from": tokenizer.get_vocab_size(),
             "mtp_drafts": "draft j is for continuation token j+1, from the post-norm hidden state before token j, and token j"}
    text = json.dumps({"rules": rules, "cases": cases}, ensure_ascii=False).replace('{"name"', '\n{"name"')
    (folder / "golden_nano.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
