"""`hadal eval` on hadal-nano: the same answers from an engine in the process and from a server, resumed runs, refusals."""
import json
import os
import shutil
import subprocess
import tempfile
import unittest
from pathlib import Path

from serving import REPOSITORY, Server

BINARY = Path(os.environ.get("HADAL_BUILD_DIR", REPOSITORY / "build/release")) / "bin/hadal"
HELDOUT = REPOSITORY / "models/nano/heldout.jsonl"
NANO = ("--model", "models/nano")


def hadal(*args: str) -> subprocess.CompletedProcess:
    return subprocess.run([str(BINARY), *args], cwd=REPOSITORY, text=True, capture_output=True, timeout=500)


def samples(transcript: Path) -> dict[int, dict]:
    lines = [json.loads(line) for line in transcript.read_text().splitlines()]
    return {line["index"]: line for line in lines[1:]}


class Eval(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name)
        self.addCleanup(self.folder.cleanup)

    def run_ok(self, *args: str) -> str:
        done = hadal(*args)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout

    def gsm8k(self, name: str, *args: str) -> tuple[dict, dict[int, dict]]:
        transcript, report = self.path / f"{name}.jsonl", self.path / f"{name}.json"
        print(self.run_ok("eval", "gsm8k", "--data", str(HELDOUT), "--limit", "120", "--max-gen-toks", "256",
                          "--output", str(transcript), "--json", str(report), *args), end="")
        return json.loads(report.read_text()), samples(transcript)

    def test_engine_and_server_give_the_same_answers(self):
        with Server() as server:
            for form in ((), ("--chat",), ("--train", str(HELDOUT), "--num-fewshot", "2")):
                name = "-".join(form[:1]) or "raw"
                local, local_samples = self.gsm8k("local" + name, *NANO, *form)
                remote, remote_samples = self.gsm8k("remote" + name, "--base-url", f"{server.url}/v1", *form)
                self.assertEqual(local_samples, remote_samples, form)
                self.assertEqual(local["strict_match"], remote["strict_match"])
                self.assertEqual(local["samples"], 120)
                for sample in local_samples.values():
                    self.assertNotIn("</think>", sample["answer"] if form == ("--chat",) else "")

    def test_results_do_not_depend_on_concurrency(self):
        _, many = self.gsm8k("many", *NANO, "--concurrency", "64")
        _, one = self.gsm8k("one", *NANO, "--concurrency", "1", "--threads", "1")
        self.assertEqual(many, one)

    def test_a_cut_run_is_resumed_and_another_runs_file_refused(self):
        _, whole = self.gsm8k("run", *NANO)
        transcript = self.path / "run.jsonl"
        lines = transcript.read_text().splitlines(keepends=True)
        transcript.write_text("".join(lines[:40]) + lines[40][:10])
        report, resumed = self.gsm8k("run", *NANO, "--resume")
        self.assertEqual(resumed, whole)
        self.assertEqual(report["resumed"], 39)
        common = ("eval", "gsm8k", "--data", str(HELDOUT), "--output", str(transcript), "--max-gen-toks", "256", *NANO)
        again = hadal(*common)
        self.assertEqual(again.returncode, 2)
        self.assertIn("--resume", again.stderr)
        other = hadal(*common, "--resume", "--kv-cache-dtype", "fp8")
        self.assertEqual(other.returncode, 2)
        self.assertIn("made by another run: model is", other.stderr)

    def test_bad_lines_and_urls_are_refused(self):
        bad = self.path / "bad.jsonl"
        bad.write_text('{"question": "q", "answer": "#### 1"}\n{"question": "q"}\n')
        done = hadal("eval", "gsm8k", "--data", str(bad), *NANO)
        self.assertNotEqual(done.returncode, 0)
        self.assertIn(f"{bad}:2: \"answer\" is missing", done.stderr)
        for url, reason in (("ftp://127.0.0.1/v1", "must be http://HOST"),
                            ("https://127.0.0.1:1/v1", "nobody listens there"),
                            ("http://127.0.0.1:1/v1", "nobody listens there")):
            self.assertIn(reason, hadal("eval", "gsm8k", "--data", str(HELDOUT), "--base-url", url).stderr)
        idle = hadal("eval", "gsm8k", "--data", str(HELDOUT), "--base-url", "http://127.0.0.1:1/v1", "--threads", "1")
        self.assertRegex(idle.stderr, "--threads excludes --base-url|--base-url excludes --threads")

    def test_perplexity_of_its_own_answers(self):
        self.gsm8k("own", *NANO)
        report = self.path / "perplexity.json"
        common = ("eval", "perplexity", *NANO, "--data", str(self.path / "own.jsonl"), "--json", str(report))
        print(self.run_ok(*common), end="")
        whole = json.loads(report.read_text())
        # Greedy answers: every scored token was the likeliest, most of them near certain.
        self.assertLess(whole["perplexity"], 1.5)
        self.assertGreater(whole["perplexity"], 1)
        self.assertEqual(whole["documents"], 120)
        self.run_ok(*common, "--context", "1000", "--stride", "10")  # no document is longer
        self.assertEqual(json.loads(report.read_text())["nats_per_token"], whole["nats_per_token"])
        self.run_ok(*common, "--context", "8")
        self.assertGreater(json.loads(report.read_text())["perplexity"], whole["perplexity"])

    def test_divergence_is_nothing_against_itself_and_something_against_fp32(self):
        report = self.path / "kl.json"
        common = ("eval", "kl", *NANO, "--data", str(HELDOUT), "--max-tokens", "2000", "--json", str(report))
        self.run_ok(*common, "--numerics", "bf16", "--reference-numerics", "bf16")
        same = json.loads(report.read_text())
        self.assertEqual((same["mean_kl"], same["max_kl"], same["top1_agreement"]), (0, 0, 1))
        print(self.run_ok(*common, "--numerics", "bf16"), end="")
        bf16 = json.loads(report.read_text())
        self.assertGreater(bf16["mean_kl"], 0)
        self.assertEqual(len(bf16["layers"]), 4)
        self.run_ok(*common, "--numerics", "bf16", "--kv-cache-dtype", "fp8")
        fp8_cache = json.loads(report.read_text())
        self.assertGreater(fp8_cache["mean_kl"], bf16["mean_kl"])
        self.assertLess(fp8_cache["layers"][3]["sqnr_db"], bf16["layers"][3]["sqnr_db"])

    def test_a_certificate_is_written_found_and_shown_and_its_lack_warned_about(self):
        model = self.path / "nano"
        shutil.copytree(REPOSITORY / "models/nano", model)
        numerics = ("--numerics", "gaudi2")
        print(self.run_ok("certify", "--model", str(model), *numerics, "--data", str(HELDOUT), "--limit", "40",
                          "--max-gen-toks", "256", "--max-tokens", "500"), end="")
        written = json.loads((model / "hadal_certificate.gaudi2-dynamic.json").read_text())
        self.assertEqual(written["gsm8k"]["samples"], 40)
        self.assertGreater(written["kl"]["mean_kl"], 0)
        self.assertGreater(written["kl"]["changed_weights"], 0)
        with Server(model=str(model), args=numerics) as server:
            self.assertTrue(any(line.startswith("certified  gsm8k ") for line in server.lines), server.lines)
            status, _, text = server.call("GET", "/hadal/certificate")
            self.assertEqual((status, json.loads(text)), (200, written))
        with Server(model=str(model), args=("--kv-cache-dtype", "fp8")) as server:
            self.assertTrue(any("no certificate says what numerics bf16-kv_fp8" in line for line in server.lines))
            self.assertEqual(server.call("GET", "/hadal/certificate")[0], 404)
        with Server(model=str(model)) as server:  # nothing is quantised: nothing to warn about
            self.assertFalse(any("certif" in line for line in server.lines), server.lines)
        shard = next(model.glob("*.safetensors"))
        shard.write_bytes(shard.read_bytes()[:-1] + b"\x01")
        with Server(model=str(model), args=numerics) as server:
            self.assertTrue(any("certificate ignored" in line and "other weights" in line for line in server.lines))
            self.assertEqual(server.call("GET", "/hadal/certificate")[0], 404)

    def test_the_table_has_a_row_for_every_variant(self):
        variants, table = self.path / "variants.json", self.path / "table.md"
        variants.write_text(json.dumps([
            {"name": "plain", "kv": "BF16", "numerics": "bf16"},
            {"name": "exact", "kv": "BF16", "numerics": "gaudi2", "gaudi_mode": "runtime-dequant"},
            {"name": "seed", "kv": "BF16", "numerics": "gaudi2", "gaudi_mode": "runtime-dequant", "range_map": "seed"}]))
        report = self.path / "table.json"
        print(self.run_ok("eval", "table", *NANO, "--data", str(HELDOUT), "--limit", "40", "--max-gen-toks", "256",
                          "--max-tokens", "1000", "--variants", str(variants), "-o", str(table), "--json", str(report)))
        self.assertEqual([line.split(" | ")[0] for line in table.read_text().splitlines()[2:]],
                         ["| plain", "| exact", "| seed"])
        plain, exact, seed = json.loads(report.read_text())["rows"]
        worst = [row["kl"]["weights"][0]["sqnr_db"] for row in (exact, seed)]
        self.assertGreater(worst[0], worst[1] + 10)  # what the seed's conversion costs
        self.assertGreater(plain["kl"]["layers"][3]["sqnr_db"], seed["kl"]["layers"][3]["sqnr_db"])
        broken = self.path / "broken.json"
        broken.write_text('[{"name": "x", "numeric": "bf16"}]')
        done = hadal("eval", "table", *NANO, "--data", str(HELDOUT), "--variants", str(broken))
        self.assertIn('row 1: unknown member "numeric" (did you mean "numerics"?)', done.stderr)


if __name__ == "__main__":
    unittest.main()
