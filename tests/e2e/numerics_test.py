"""Every numerics profile end to end: hadal-nano still solves its problems, and says by which arithmetic."""
import json
import os
import subprocess
import tempfile
import unittest
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from heldout_test import HELDOUT, final_number, solve_in_chat
from serving import REPOSITORY, Server

BINARY = Path(os.environ.get("HADAL_BUILD_DIR", REPOSITORY / "build/release")) / "bin/hadal"
PROBLEMS = [json.loads(line) for line in HELDOUT.read_text().splitlines()][:60]
# Of 60 problems nano in BF16 has about 58 right; the binomial spread is 2. FP8 may cost some of them.
REQUIRED_RIGHT = 50
MEASUREMENTS = REPOSITORY / "models/nano/measurements"
CONFIGS = REPOSITORY / "eval/quant_configs"


def run_hadal(*args: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess:
    return subprocess.run([str(BINARY), *args], cwd=REPOSITORY, env={**os.environ, **(env or {})}, text=True,
                          capture_output=True, timeout=300)


class Numerics(unittest.TestCase):
    def solve(self, *args: str, env: dict[str, str] | None = None, model: str = "models/nano") -> str:
        """Serves, solves, checks the share of right answers; returns what the server printed."""
        with Server(args=("--num-blocks", "2000", *args), env=env, model=model) as server:
            with ThreadPoolExecutor(32) as clients:
                texts = list(clients.map(lambda problem: solve_in_chat(server, problem["question"]), PROBLEMS))
            said = "\n".join(server.lines)
        right = sum(final_number(text) == final_number(problem["answer"]) for text, problem in zip(texts, PROBLEMS))
        print(f"{' '.join(args) or 'default'}: {right} of {len(PROBLEMS)} right")
        self.assertGreaterEqual(right, REQUIRED_RIGHT, said)
        return said

    def test_profiles_without_measurements(self):
        for args, key in ((("--numerics", "fp8-dynamic"), "fp8-dynamic:"),
                          (("--numerics", "gaudi2", "--kv-cache-dtype", "fp8_inc"), "gaudi2-dynamic-kv_fp8:"),
                          (("--numerics", "gaudi2", "--range-map", "seed"), "gaudi2-dynamic-seed:"),
                          (("--kv-cache-dtype", "fp8_inc"), "bf16-kv_fp8:"),
                          (("--numerics", "gaudi3", "--gaudi-mode", "runtime-dequant"), "gaudi3-runtime-dequant:")):
            self.assertIn(f"numerics   {key}", self.solve(*args))

    def test_the_environment_chooses_runtime_dequant(self):
        said = self.solve("--numerics", "gaudi2", env={"VLLM_ENABLE_RUNTIME_DEQUANT": "1"})
        self.assertIn("numerics   gaudi2-runtime-dequant:", said)

    def test_inc_as_the_guide_starts_it(self):
        with tempfile.TemporaryDirectory() as prefix:
            config = json.loads((CONFIGS / "per_channel_fp8kv.json").read_text())
            stats = Path(prefix) / config["dump_stats_path"]
            stats.parent.mkdir(parents=True)
            for file in MEASUREMENTS.glob("inc_measure_output_hooks_maxabs_*_1*"):
                (stats.parent / file.name).write_bytes(file.read_bytes())
            said = self.solve("--quantization", "inc", "--kv-cache-dtype", "fp8_inc", env={
                "QUANT_CONFIG": str(CONFIGS / "per_channel_fp8kv.json"), "INC_FORCE_NAIVE_SCALING": "1",
                "INC_MEASUREMENT_DUMP_PATH_PREFIX": prefix, "VLLM_REQUANT_FP8_INC": "1",
                "VLLM_ENABLE_RUNTIME_DEQUANT": "1"})
            self.assertIn("Preparing model with INC", said)
            self.assertIn("numerics   gaudi2-inc-act_maxabs_hw_weights_pcs_maxabs_pow2-naive-kv_fp8:", said)
            self.assertIn(f"INC_MEASUREMENT_DUMP_PATH_PREFIX is set to {prefix}", said)

    def test_inc_from_the_merged_file(self):
        said = self.solve("--quantization", "inc", "--quant-config", str(CONFIGS / "per_channel_bf16kv.json"),
                          "--measurements", str(MEASUREMENTS / "hadal_ranges.json"), "--numerics", "gaudi3")
        self.assertIn("numerics   gaudi3-inc-", said)

    def test_a_folder_converted_by_the_guides_script(self):
        with tempfile.TemporaryDirectory() as root:
            converted = str(Path(root) / "nano-g2")
            done = run_hadal("convert", "-i", "models/nano", "-o", converted, "--method", "seed", "--bug-compatible")
            self.assertEqual(done.returncode, 0, done.stderr)
            said = self.solve("--numerics", "gaudi2", model=converted)
            self.assertIn("converted for Gaudi 2 by the seed rule", said)

    def test_per_channel_folders(self):
        with tempfile.TemporaryDirectory() as root:
            for target in ("gaudi2", "gaudi3"):
                done = run_hadal("convert", "-i", "models/nano", "-o", f"{root}/{target}", "--method", "channel",
                                 "--target", target)
                self.assertEqual(done.returncode, 0, done.stderr)
            self.solve("--numerics", "gaudi2", model=f"{root}/gaudi2")
            self.solve("--numerics", "bf16", model=f"{root}/gaudi3")
            done = run_hadal("serve", "--model", f"{root}/gaudi3", "--port", "0", "--numerics", "gaudi2")
            self.assertEqual(done.returncode, 2)
            self.assertIn("a Gaudi 2 ends at 240", done.stdout + done.stderr)

    def test_refusals_name_the_flag(self):
        cases = (
            (("--numerics", "gaudi4"), "gaudi", {}),
            (("--numerics", "bf16", "--quantization", "inc"), "--quantization inc", {}),
            (("--gaudi-mode", "dynamic"), "--gaudi-mode dynamic", {}),
            (("--numerics", "gaudi2", "--gaudi-mode", "inc"), "--gaudi-mode inc", {}),
            (("--numerics", "gaudi2", "--gaudi-mode", "static"), "static input scales", {}),
            (("--numerics", "gaudi2", "--range-map", "none"), "--range-map none", {}),
            (("--numerics", "gaudi3", "--range-map", "seed"), "--range-map seed", {}),
            (("--measurements", "somewhere"), "--quantization inc", {}),
            (("--quantization", "inc"), "QUANT_CONFIG", {"QUANT_CONFIG": ""}),
            (("--quantization", "inc", "--quant-config", str(CONFIGS / "per_channel_bf16kv.json"), "--measurements",
              "/nowhere"), "/nowhere", {}),
        )
        for args, words, env in cases:
            with self.subTest(args=args):
                done = run_hadal("serve", "--model", "models/nano", "--host", "127.0.0.1", "--port", "0", *args, env=env)
                self.assertNotEqual(done.returncode, 0)
                self.assertIn(words, done.stdout + done.stderr)


if __name__ == "__main__":
    unittest.main()
