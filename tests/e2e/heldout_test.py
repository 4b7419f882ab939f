"""hadal-nano solves held-out word problems: at least 95 % of 500, greedy, in chat form and in GSM8K's raw form."""
import json
import re
import unittest
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from serving import Server

HELDOUT = Path(__file__).resolve().parents[2] / "models/nano/heldout.jsonl"
REQUIRED_SHARE = 0.95
ANSWER = re.compile(r"#### (-?[0-9.,]+)")


def final_number(text: str) -> str | None:
    found = ANSWER.findall(text)
    return found[-1].rstrip(".").replace(",", "") if found else None


def solve_in_chat(server: Server, question: str) -> str:
    answer = server.post("/v1/chat/completions", {"messages": [{"role": "user", "content": question}],
                                                  "temperature": 0, "max_tokens": 256})
    return answer["choices"][0]["message"]["content"] or ""


def solve_raw(server: Server, question: str) -> str:
    answer = server.post("/v1/completions", {"prompt": f"Question: {question}\nAnswer:", "temperature": 0,
                                             "max_tokens": 256, "stop": ["Question:"]})
    return answer["choices"][0]["text"]


class Heldout(unittest.TestCase):
    def test_share_of_right_answers(self):
        problems = [json.loads(line) for line in HELDOUT.read_text().splitlines()]
        self.assertEqual(len(problems), 500)
        with Server() as server, ThreadPoolExecutor(32) as clients:
            for form, solve in (("chat", solve_in_chat), ("raw", solve_raw)):
                texts = list(clients.map(lambda problem: solve(server, problem["question"]), problems))
                right = sum(final_number(text) == final_number(problem["answer"])
                            for text, problem in zip(texts, problems))
                print(f"hadal-nano, {form}: {right} of {len(problems)} right ({right / len(problems):.1%})")
                self.assertGreaterEqual(right / len(problems), REQUIRED_SHARE, form)


if __name__ == "__main__":
    unittest.main()
