#!/usr/bin/env python3
"""Writes gsm8k_cases.json: what lm_eval's gsm8k task itself makes of answers, targets and few-shot draws.

Run it with a Python that has `lm_eval[api]` (eval/lm_eval/README.md); 0.4.13 wrote the file in the repository.
"""
import json
import random
from pathlib import Path

import yaml
import lm_eval
from lm_eval.api.metrics import exact_match_hf_evaluate
from lm_eval.api.samplers import ContextSampler
from lm_eval.filters.extraction import RegexFilter

HERE = Path(__file__).resolve().parent
TASK = yaml.safe_load((Path(lm_eval.__file__).parent / "tasks/gsm8k/gsm8k.yaml").read_text())

ANSWERS = [
    "", " ", "no number at all", "#### 18", " 9 + 9 = 18\n#### 18", "#### 18.", "#### 18.\n", "#### 1,234", "#### $5",
    "#### -3", "####-3", "#### - 3", "####  7", "##### 5", "#### #### 6", "####\n8", "#### .", "#### ,", "#### -",
    "#### -.5", "#### 1.5", "#### 12,", "#### 1\n#### 2", "The answer is 42", "The answer is $5", "The answer is $5.",
    "It costs $1,234.50.", "-5", "--5", "5-3", "a-3b", "3.", "3.\nQuestion", "$", "$$", "..", ", ,", "-..", "-$5", "5 %",
    "1/2", "x = 7, so y = 8.", "x = 7, so y = 8...", "answer: 9,", "##### 10 then #### 11", "#### ten", "#### 0018",
    "#### +4", "#### ٣", "答案是 12。", "#### 12。", "#### １２", "so 3 apples, 4 pears.", "12\u00a034", "#### 1 234",
    "#### 1e5", "Total: $ 7", "#### 7 dollars", "####7 #### 9", "-", "- 4", "4 -", "#### 5\r\n", "the 2nd is #### 5th",
    "<<51+39=90>>90 #### 90", "#### 3.00", "#### 1.2.3", "...5", "$,.", "7,$", "#### \t5", "####\u00a05",
]
TARGETS = [
    "18", "#### 18", "9+9 = <<9+9=18>>18\n#### 18", "#### 18.", "#### 18.\n", "#### 18\n", "#### 1,234", "#### $1,234",
    "$5", "-3", "#### -3", "1234", "5", "5.", "5..", "[INVALID]", "[invalid]", "#### [Invalid].", "#### 1\n#### 2",
    "####18", "#### 18 ", " 18", "3.00", "#### 3,.", "$", "", ".", ".\n", "#### .", "#, ### 7", "##$## 7", "ÄB #### X",
    "3", "42", "1234.50", "8", "10", "9", "12", "0018", "90", "1.5", ".5", "-.5", "7", "6",
]
DRAWS = [(1234, 7, 5, 4), (1234, 8, 6, 4), (1234, 7473, 5, 6), (0, 40, 8, 3), (1, 100, 1, 5), (42, 86, 6, 4),
         (2**40 + 7, 500, 10, 3), (1234, 1, 1, 3), (7, 277, 20, 2)]


def regex_filter(name: str) -> RegexFilter:
    steps = next(entry["filter"] for entry in TASK["filter_list"] if entry["name"] == name)
    return RegexFilter(**{key: value for key, value in steps[0].items() if key != "function"})


def main() -> None:
    metric = dict(TASK["metric_list"][0])
    options = {key: metric[key] for key in ("ignore_case", "ignore_punctuation", "regexes_to_ignore")}
    strict = [row[0] for row in regex_filter("strict-match").apply([[answer] for answer in ANSWERS], ANSWERS)]
    flexible = [row[0] for row in regex_filter("flexible-extract").apply([[answer] for answer in ANSWERS], ANSWERS)]
    filtered = sorted(set(strict + flexible))
    matches = [[prediction, target] for prediction in filtered for target in TARGETS
               if exact_match_hf_evaluate([prediction], [target], **options)["exact_match"] == 1.0]
    draws = []
    for seed, pool, count, rounds in DRAWS:
        sampler = ContextSampler(list(range(pool)), rnd=seed)
        draws.append({"seed": seed, "pool": pool, "count": count,
                      "picked": [sampler.sample(count) for _ in range(rounds)]})
    generator = random.Random(1234)
    cases = {"lm_eval": lm_eval.__version__,
             "answers": [{"answer": a, "strict": s, "flexible": f} for a, s, f in zip(ANSWERS, strict, flexible)],
             "predictions": filtered, "targets": TARGETS, "matches": matches, "draws": draws,
             "uint32_of_1234": [generator.getrandbits(32) for _ in range(4)]}
    (HERE / "gsm8k_cases.json").write_text(json.dumps(cases, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
