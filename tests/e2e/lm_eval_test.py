"""lm_eval itself, with the command of Intel's guide, against `make serve`: at least 90 % of hadal-nano's held-out
problems, and every sample scored as `hadal eval gsm8k` scores it; log-likelihoods to the last bit as the server gives them.
Needs a Python with `lm_eval[api]`: $HADAL_LM_EVAL names it or the folder of its virtual environment
(eval/lm_eval/README.md); 760 MB, which CI does not fetch."""
import json
import os
import shutil
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

from serving import REPOSITORY, Server
from virtual_environment import SKIPPED

BINARY = Path(os.environ.get("HADAL_BUILD_DIR", REPOSITORY / "build/release")) / "bin/hadal"
REQUIRED_SHARE = 0.9


def find_python() -> str | None:
    given = os.environ.get("HADAL_LM_EVAL", "")
    candidates = [given, str(Path(given) / "bin/python") if given else "", str(REPOSITORY / "build/lm_eval/bin/python"),
                  sys.executable]
    for python in filter(None, candidates):
        if shutil.which(python) and subprocess.run([python, "-c", "import lm_eval"], capture_output=True).returncode == 0:
            return python
    return None


def run_lm_eval(python: str, url: str, output: Path, task: str, *arguments: str) -> list[dict]:
    """The guide's command. -> its samples"""
    model_arguments = f"model=models/nano,max_gen_toks=4096,max_length=16384,base_url={url}/v1/completions"
    command = [python, "-m", "lm_eval", "--model", "local-completions", "--tasks", task, "--include_path", "eval/lm_eval",
               "--model_args", model_arguments, "--batch_size", "16", "--log_samples", "--output_path", str(output), *arguments]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HOME": str(output / "cache")}
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, text=True, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, timeout=500)
    if done.returncode != 0:
        raise AssertionError(done.stdout[-4000:])
    print(done.stdout[done.stdout.rfind("|      Tasks"):])
    return [json.loads(line) for path in output.glob(f"**/samples_{task}_*.jsonl") for line in path.read_text().splitlines()]


def lm_eval_samples(python: str, url: str, output: Path) -> dict[int, dict[str, dict]]:
    """-> document index -> filter -> sample"""
    samples: dict[int, dict[str, dict]] = {}
    for sample in run_lm_eval(python, url, output, "hadal_nano_heldout"):
        samples.setdefault(sample["doc_id"], {})[sample["filter"]] = sample
    return samples


def continuation_logprob(server: Server, context: str, continuation: str) -> tuple[float, bool]:
    """Sum of the continuation's log-probabilities, and whether greedy decoding gives it, asked for by ourselves."""
    def ids(text: str) -> list[int]:
        return server.post("/tokenize", {"prompt": text, "add_special_tokens": False})["tokens"]
    prompt, begin = ids(context + continuation), len(ids(context))
    logprobs = server.post("/v1/completions", {"prompt": [prompt], "max_tokens": 1, "temperature": 0, "logprobs": 1,
                                               "echo": True})["choices"][0]["logprobs"]
    values = logprobs["token_logprobs"][begin:len(prompt)]
    best = [max(top.values()) for top in logprobs["top_logprobs"][begin:len(prompt)]]
    return sum(values), values == best


def hadal_samples(url: str, output: Path) -> dict[int, dict]:
    done = subprocess.run([str(BINARY), "eval", "gsm8k", "--data", "models/nano/heldout.jsonl", "--base-url", f"{url}/v1",
                           "--max-gen-toks", "4096", "--output", str(output)],
                          cwd=REPOSITORY, text=True, capture_output=True, timeout=500)
    if done.returncode != 0:
        raise AssertionError(done.stderr)
    print(done.stdout)
    lines = [json.loads(line) for line in output.read_text().splitlines()]
    return {line["index"]: line for line in lines[1:]}


class LmEval(unittest.TestCase):
    def test_scores_and_agrees_on_every_sample(self):
        with tempfile.TemporaryDirectory() as folder, Server(through_make=True) as server:
            theirs = lm_eval_samples(PYTHON, server.url, Path(folder) / "lm_eval")
            ours = hadal_samples(server.url, Path(folder) / "hadal.jsonl")
        self.assertEqual(len(theirs), 500)
        self.assertEqual(theirs.keys(), ours.keys())
        for index, filters in theirs.items():
            for name, key in (("strict-match", "strict"), ("flexible-extract", "flexible")):
                their, our = filters[name], ours[index]
                self.assertEqual(their["resps"][0][0], our["answer"], index)
                self.assertEqual(their["filtered_resps"][0], our[key], index)
                self.assertEqual(their["exact_match"] == 1, our[f"{key}_right"], index)
        for name in ("strict-match", "flexible-extract"):
            share = sum(filters[name]["exact_match"] for filters in theirs.values()) / len(theirs)
            self.assertGreaterEqual(share, REQUIRED_SHARE, name)

    def test_loglikelihoods(self):
        with tempfile.TemporaryDirectory() as folder, Server(through_make=True) as server:
            samples = run_lm_eval(PYTHON, server.url, Path(folder), "hadal_nano_choice", "--limit", "100")
            self.assertEqual(len(samples), 100)
            for sample in samples:
                for index, response in enumerate(sample["filtered_resps"]):
                    context, continuation = sample["arguments"][f"gen_args_{index}"].values()
                    value, greedy = continuation_logprob(server, context, continuation)
                    self.assertEqual((float(response[0]), str(response[1])), (value, str(greedy)), sample["doc_id"])
        share = sum(sample["acc"] for sample in samples) / len(samples)
        self.assertGreaterEqual(share, REQUIRED_SHARE)


PYTHON = find_python()

if __name__ == "__main__":
    if PYTHON is None:
        print("skipped: no Python with lm_eval; make one as eval/lm_eval/README.md says, or name it in HADAL_LM_EVAL")
        sys.exit(SKIPPED)
    unittest.main()
