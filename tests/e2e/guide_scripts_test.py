"""scripts/quickstart: the guide's options, what becomes of them, what is refused; and that the server they start answers."""
from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import tempfile
import time
import unittest
from pathlib import Path

from serving import REPOSITORY, Server

SCRIPTS = REPOSITORY / "scripts/quickstart"
BINARY = Path(os.environ.get("HADAL_BUILD_DIR", REPOSITORY / "build/release")).resolve() / "bin/hadal"
# What the guide's script exports and prints before a server starts.
OF_THE_USER = ("QUANT_CONFIG", "INC_MEASUREMENT_DUMP_PATH_PREFIX", "INC_FORCE_NAIVE_SCALING", "KV_CACHE_DTYPE",
               "max_num_batched_tokens", "VLLM_HOST_IP", "GLOO_SOCKET_IFNAME")


def environment(**changes: str) -> dict[str, str]:
    return {**{name: value for name, value in os.environ.items() if name not in OF_THE_USER}, "HADAL": str(BINARY), **changes}


def run(script: str, *arguments: str, cwd: Path = REPOSITORY, **changes: str) -> subprocess.CompletedProcess:
    return subprocess.run(["bash", str(SCRIPTS / script), *arguments], cwd=cwd, env=environment(**changes),
                          capture_output=True, text=True, timeout=300)


def source(script: str, *arguments: str, **changes: str) -> subprocess.CompletedProcess:
    """Sources it in a strict shell and prints what it exports."""
    line = f"set -euo pipefail; source {SCRIPTS / script} {shlex.join(arguments)}; env"
    return subprocess.run(["bash", "-c", line], env=environment(**changes), capture_output=True, text=True, timeout=60)


class StartServer(unittest.TestCase):
    def command(self, *arguments: str, **changes: str) -> list[str]:
        done = run("start_server.sh", *arguments, "--dry-run", **changes)
        self.assertEqual(done.returncode, 0, done.stderr)
        return shlex.split(done.stdout)

    def test_defaults_are_the_guides(self):
        words = self.command()
        self.assertEqual(words[:2], [str(BINARY), "serve"])
        for flag, value in (("--host", "0.0.0.0"), ("--port", "8688"), ("--max-model-len", "16384"), ("--max-num-seqs", "64"),
                            ("--block-size", "128"), ("--dtype", "bfloat16"), ("--kv-cache-dtype", "auto")):
            self.assertEqual(words[words.index(flag) + 1], value, flag)
        self.assertNotIn("--quantization", words)

    def test_options_reach_the_command(self):
        words = self.command("-w", "/a folder", "-u", "::1", "-p", "9", "-l", "128", "-b", "3")
        for flag, value in (("--model", "/a folder"), ("--host", "::1"), ("--port", "9"), ("--max-model-len", "128"),
                            ("--max-num-seqs", "3")):
            self.assertEqual(words[words.index(flag) + 1], value, flag)

    def test_options_may_stand_together_as_getopts_has_them(self):
        words = self.command("-sqp9000", "-b4", "-l", "128")
        for flag, value in (("--port", "9000"), ("--max-num-seqs", "4"), ("--max-model-len", "128"), ("--quantization", "inc")):
            self.assertEqual(words[words.index(flag) + 1], value, flag)
        for word, message in (("-sz", "unknown option '-sz'"), ("-sb", "-b needs a value"), ("-bx", "-b x: expected")):
            done = run("start_server.sh", word)
            self.assertEqual(done.returncode, 2)
            self.assertIn(message, done.stderr)

    def test_flags_of_hadal_follow_two_dashes(self):
        done = run("start_server.sh", "--dry-run", "--", "--api-key", "a b")
        self.assertEqual(shlex.split(done.stdout)[-2:], ["--api-key", "a b"])

    def test_inc_sets_the_forks_variables_unless_they_are_set(self):
        words = self.command("-q", INC_FORCE_NAIVE_SCALING="0")
        self.assertIn(f"QUANT_CONFIG={REPOSITORY}/eval/quant_configs/per_channel_fp8kv.json", words)
        self.assertIn(f"INC_MEASUREMENT_DUMP_PATH_PREFIX={REPOSITORY}/scripts", words)
        self.assertIn("INC_FORCE_NAIVE_SCALING=0", words)
        self.assertIn("VLLM_REQUANT_FP8_INC=1", words)
        self.assertIn("VLLM_ENABLE_RUNTIME_DEQUANT=1", words)
        self.assertEqual(words[words.index("--quantization") + 1], "inc")
        self.assertEqual(words[words.index("--kv-cache-dtype") + 1], "fp8_inc")

    def test_options_without_meaning_say_so(self):
        done = run("start_server.sh", "-c", "/cache", "-s", "-m", "4", HADAL_DRY_RUN="1")
        self.assertEqual(done.returncode, 0)
        for option in ("-c /cache:", "-s:", "-m 4:"):
            self.assertIn(option, done.stderr)

    def test_refusals_name_the_nearest(self):
        cases = ((("--modle", "x"), "'--modle' (did you mean -w?)"), (("--max_num_seqs", "3"), "(did you mean -b?)"),
                 (("-W", "x"), "(did you mean -w?)"), (("--port=3",), "(did you mean -p?)"), (("-z",), "unknown option '-z'\n"),
                 (("extra",), "unknown option 'extra'"), (("-b",), "-b needs a value"), (("-b", "0"), "-b 0: expected"),
                 (("-l", "1k"), "-l 1k: expected"))
        for arguments, message in cases:
            with self.subTest(arguments=arguments):
                done = run("start_server.sh", *arguments)
                self.assertEqual(done.returncode, 2)
                self.assertIn(message, done.stderr)
                self.assertEqual(done.stdout, "")

    def test_without_a_program(self):
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "scripts").symlink_to(REPOSITORY / "scripts")
            done = subprocess.run(["bash", f"{folder}/scripts/quickstart/start_server.sh"], capture_output=True, text=True,
                                  env={"PATH": "/usr/bin:/bin"})
        self.assertEqual(done.returncode, 2)
        self.assertIn("make build", done.stderr)

    def test_help(self):
        for script in ("start_server.sh", "run_inc_calib.sh", "set_head_node.sh", "set_worker_node.sh"):
            done = run(script, "-h")
            self.assertEqual(done.returncode, 0, script)
            self.assertIn("Usage:", done.stdout)

    def test_it_serves(self):
        server = Server(env=environment(HADAL_NUM_BLOCKS="200"))
        server.command = ["bash", str(SCRIPTS / "start_server.sh"), "-w", "models/nano", "-u", "127.0.0.1", "-p", "0", "-b", "4",
                          "-l", "4096"]
        with server:
            answer = server.post("/v1/completions", {"prompt": "1 + 1 =", "max_tokens": 4})
            self.assertEqual(answer["model"], "models/nano")
            self.assertEqual(server.stop(), 0)

    def test_flags_after_two_dashes_overrule_its_own(self):
        done = run("start_server.sh", "-w", "models/nano", "--", "--max-num-batched-tokens", "4096", "--explain-config")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertRegex(done.stdout, r"max-num-batched-tokens +4096 +flag")


class ApiServer(unittest.TestCase):
    def test_every_flag_of_the_guide(self):
        """The single-node command line of the fork, and flags of vLLM that mean nothing here: each says so once."""
        server = Server(env=environment(HADAL_NUM_BLOCKS="200"))
        server.command = [
            "bash", str(SCRIPTS / "api_server.sh"), "-m", "vllm.entrypoints.openai.api_server", "--host", "127.0.0.1", "--port", "0",
            "--block-size", "128", "--model", "models/nano", "--device", "hpu", "--dtype", "bfloat16", "--kv-cache-dtype", "fp8_inc",
            "--tensor-parallel-size", "1", "--max-num-prefill-seqs", "1", "--trust-remote-code", "--max-model-len", "4096",
            "--max-num-seqs", "8", "--max-num-batched-tokens", "4096", "--use-padding-aware-scheduling",
            "--use-v2-block-manager", "--num_scheduler_steps", "1", "--gpu_memory_utilization", "0.85", "--disable-log-requests",
            "--enable-reasoning", "--reasoning-parser", "deepseek_r1", "--revision", "main", "--compilation-config", "0"]
        with server:
            said = "\n".join(server.lines)
        for flag in ("device", "max-num-prefill-seqs", "trust-remote-code", "use-padding-aware-scheduling", "use-v2-block-manager",
                     "num-scheduler-steps", "gpu-memory-utilization", "enable-reasoning", "revision", "compilation-config"):
            self.assertEqual(said.count(f"--{flag} is accepted and has no effect"), 1, flag)
        self.assertEqual(said.count("--kv-cache-dtype fp8_inc without INC's measurements"), 1, said)

    def test_unknown_flags_and_ids(self):
        done = run("api_server.sh", "--model", "models/nano", "--max-num-seq", "1")
        self.assertEqual(done.returncode, 2)
        self.assertIn("did you mean --max-num-seqs?", done.stderr)
        done = run("api_server.sh", "--model", "deepseek-ai/DeepSeek-R1")
        self.assertNotEqual(done.returncode, 0)
        for words in ("hf download deepseek-ai/DeepSeek-R1 --local-dir DeepSeek-R1", "huggingface-cli download",
                      "modelscope download --model deepseek-ai/DeepSeek-R1 --local_dir DeepSeek-R1", "--model DeepSeek-R1"):
            self.assertIn(words, done.stderr)

    def test_ids_where_other_commands_expect_a_folder(self):
        for command, flag in (("inspect", "--model"), ("plan --model", "--model"), ("calibrate --data x.txt --model", "--model"),
                              ("convert -o out -i", "-i")):
            done = subprocess.run([str(BINARY), *command.split(), "org/some-model_1.5"], env=environment(), capture_output=True,
                                  text=True, timeout=60)
            self.assertNotEqual(done.returncode, 0, command)
            for words in ("hf download org/some-model_1.5 --local-dir some-model_1.5",
                          "modelscope download --model org/some-model_1.5", f"then {flag} some-model_1.5"):
                self.assertIn(words, done.stderr, command)
        for no_id in ("org/a;rm", "org/a b", "./org/a", "/org/a", "org/a/b", "a", "org/", "-org/a", "org/-a"):
            done = run("start_server.sh", "-w", no_id)
            self.assertNotEqual(done.returncode, 0, no_id)
            self.assertNotIn("hf download", done.stderr, no_id)


class Calibration(unittest.TestCase):
    def test_options_become_those_of_calibrate(self):
        done = run("run_inc_calib.sh", "--model", "/m", "--wd", "16", "--nprompts", "5000", "--data", "d.txt", "--dry-run",
                   "--", "--tensor-parallel-size", "2", "--resume")
        words = shlex.split(done.stdout)
        self.assertEqual(words[:2], [str(BINARY), "calibrate"])
        for flag, value in (("--model", "/m"), ("--wd", "16"), ("--nprompts", "5000"), ("--data", "d.txt"),
                            ("--output", f"{REPOSITORY}/scripts/nc_workspace_measure_kvcache")):
            self.assertEqual(words[words.index(flag) + 1], value, flag)
        self.assertEqual(words[-3:], ["--tensor-parallel-size", "2", "--resume"])

    def test_it_measures_and_keeps_the_log(self):
        with tempfile.TemporaryDirectory() as folder:
            done = run("run_inc_calib.sh", "--model", str(REPOSITORY / "models/nano"), "--wd", "8", "--nprompts", "2", "--data",
                       str(REPOSITORY / "models/nano/calibration.jsonl"), "--", "--prompt-len", "64", cwd=Path(folder),
                       CALIBRATION_OUTPUT=f"{folder}/out")
            self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
            logs = list(Path(folder).glob("prepare.pile.2.*.log"))
            self.assertEqual(len(logs), 1)
            self.assertIn("Got 2 prompts, length of first prompt: 64.", logs[0].read_text())
            self.assertTrue((Path(folder) / "out/inc_measure_output_hooks_maxabs_7_8.npz").exists())

    def test_refusals(self):
        cases = ((("--modl", "x"), "(did you mean --model?)"), (("--model", "/m", "--nprompt", "3"), "(did you mean --nprompts?)"),
                 ((), "--model is missing"), (("--model", "/m", "--data", "/none.txt"), "pile-10k"), (("--wd",), "--wd needs a value"),
                 (("--model", "/m", "--nprompts", "-3"), "--nprompts -3"))
        for arguments, message in cases:
            with self.subTest(arguments=arguments):
                done = run("run_inc_calib.sh", *arguments)
                self.assertEqual(done.returncode, 2)
                self.assertIn(message, done.stderr)

    def test_a_failed_run_fails(self):
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "d.txt").write_text("words\n")
            done = run("run_inc_calib.sh", "--model", "/no/such/folder", "--data", "d.txt", cwd=Path(folder))
        self.assertNotEqual(done.returncode, 0)


class Nodes(unittest.TestCase):
    def setUp(self):
        shown = subprocess.run(["ip", "-o", "-4", "addr", "show", "scope", "global"], capture_output=True, text=True)
        fields = shown.stdout.split() if shown.returncode == 0 else []
        if len(fields) < 4:
            self.skipTest("no IPv4 address but loopback, or no `ip`: the node scripts were not tried")
        self.interface, self.address = fields[1], fields[3].split("/")[0]

    def test_they_set_the_forks_variables(self):
        for done in (source("set_head_node.sh", self.address), source("set_worker_node.sh", "192.0.2.1", self.address)):
            self.assertEqual(done.returncode, 0, done.stderr)
            for line in (f"VLLM_HOST_IP={self.address}", f"GLOO_SOCKET_IFNAME={self.interface}",
                         f"HCCL_SOCKET_IFNAME={self.interface}"):
                self.assertIn(line, done.stdout.splitlines())
            self.assertNotIn("VLLM_REQUANT_FP8_INC", done.stdout)

    def test_the_head_has_what_the_command_line_needs(self):
        lines = source("set_head_node.sh", "-q", self.address, max_num_seqs="64").stdout.splitlines()
        for line in ("max_num_batched_tokens=32768", "max_num_seqs=64", "block_size=128", "KV_CACHE_DTYPE=auto",
                     "VLLM_REQUANT_FP8_INC=1", "INC_FORCE_NAIVE_SCALING=1",
                     f"QUANT_CONFIG={REPOSITORY}/eval/quant_configs/per_channel_bf16kv.json"):
            self.assertIn(line, lines)

    def test_wrong_addresses_are_named(self):
        cases = ((("set_head_node.sh", "127.0.0.1"), "loopback"), (("set_head_node.sh", "198.51.100.7"), "198.51.100.7"),
                 (("set_head_node.sh", self.address, "nic9"), "nic9"), (("set_worker_node.sh",), "HEAD_IP"),
                 (("set_head_node.sh", "-x"), "unknown option '-x'"))
        for arguments, message in cases:
            with self.subTest(arguments=arguments):
                done = source(*arguments)
                self.assertNotEqual(done.returncode, 0)
                self.assertIn(message, done.stderr)

    def test_options_may_follow_the_address(self):
        done = source("set_worker_node.sh", "192.0.2.1", self.address, "-q")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("VLLM_REQUANT_FP8_INC=1", done.stdout.splitlines())

    def test_an_interface_that_is_not_there_is_named(self):
        done = source("set_head_node.sh", GLOO_SOCKET_IFNAME="nic9")
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("no interface nic9 (GLOO_SOCKET_IFNAME)", done.stderr)

    def test_they_must_be_sourced(self):
        for script in ("set_head_node.sh", "set_worker_node.sh"):
            done = run(script, "192.0.2.1")
            self.assertEqual(done.returncode, 2)
            self.assertIn("source", done.stderr)


class Buckets(unittest.TestCase):
    def test_the_variables_and_the_flags(self):
        for arguments, changes in ((("--decode-bs-bucket-max", "32"), {}), (("--VLLM_DECODE_BS_BUCKET_MAX", "32"), {}),
                                   ((), {"VLLM_DECODE_BS_BUCKET_MAX": "32"})):
            done = subprocess.run([str(BINARY), "plan", "buckets", *arguments], env=environment(**changes), capture_output=True,
                                  text=True)
            self.assertIn("Decode bucket config (min, step, max_warmup) bs:[1, 8, 32], block:[128, 128, 8192]", done.stdout)
        for arguments, message in ((("--decode-bs-bucket-step", "0"), "VLLM_DECODE_BS_BUCKET_*"), (("-l", "-1"), "--max-model-len"),
                                   (("--prompt-seq-bucket-max", "9" * 30), "VLLM_PROMPT_SEQ_BUCKET_MAX"),
                                   (("--prompt-seq-bucket-mix", "9"), "did you mean --prompt-seq-bucket-m"),
                                   (("--rule", "cubic"), "--rule")):
            done = subprocess.run([str(BINARY), "plan", "buckets", *arguments], env=environment(), capture_output=True, text=True)
            self.assertEqual(done.returncode, 2, arguments)
            self.assertIn(message, done.stderr + done.stdout)


class Traffic(unittest.TestCase):
    def test_a_run_over_two_ranks_moves_what_the_plan_says(self):
        programs = subprocess.run([str(BINARY), "--help"], capture_output=True, text=True).stdout
        if not re.search(r"^  worker ", programs, re.M):
            self.skipTest("this build has one rank: planned traffic was not compared with a run's")
        planned = json.loads(subprocess.run(
            [str(BINARY), "plan", "--model", "models/nano", "--nnodes", "2", "--machine", "2x-epyc-9005", "--json"], cwd=REPOSITORY,
            capture_output=True, text=True, check=True).stdout)
        with Server(args=("--tensor-parallel-size", "2", "--max-model-len", "4096", "--threads", "1")) as server:
            before = self.counted(server)
            usage = server.post("/v1/completions", {"prompt": "1 2 3 4 5 6 7 8", "max_tokens": 20, "ignore_eos": True,
                                                    "temperature": 0})["usage"]
            # Every token but the last is computed; every generated one is sampled from logits.
            tokens = usage["prompt_tokens"] + usage["completion_tokens"] - 1
            expected = tokens * planned["token_payload_bytes"] + usage["completion_tokens"] * planned["row_payload_bytes"]
            deadline = time.monotonic() + 60  # the last step is counted after its answer has been sent
            while (moved := self.counted(server) - before) < expected and time.monotonic() < deadline:
                time.sleep(0.02)
        # Ranks agree once where the pieces of a step end: 8 bytes.
        self.assertTrue(0 <= moved - expected <= 64, (moved, expected))

    def counted(self, server: Server) -> float:
        text = server.call("GET", "/metrics")[2]
        return sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith("hadal_step_comm_bytes_total"))


if __name__ == "__main__":
    unittest.main()
