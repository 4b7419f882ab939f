"""`hadal bench` runs on the small model of the repository and writes what src/bench/README.md promises. No speed is
judged here."""
import json
import os
import subprocess
import tempfile
import unittest
import xml.dom.minidom
from pathlib import Path

from serving import REPOSITORY, Server

BINARY = Path(os.environ.get("HADAL_BUILD_DIR", REPOSITORY / "build/release")) / "bin/hadal"
NANO = REPOSITORY / "models/nano"
LOSSES = ["attention", "experts", "dense", "norms", "routing", "head", "sampling", "comm", "barriers", "idle"]
SPREADS = ["seconds", "tokens_per_s"]
NUMBERS = ["weight_bytes", "kv_bytes", "flops", "gb_per_s", "gflops", "read_bandwidth", "ceiling_share", "target_share"]


class Bench(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.dir = Path(self.folder.name)

    def run_hadal(self, *arguments, returncode=0):
        # The cache of tuned settings is the test's own.
        environment = {**os.environ, "XDG_CACHE_HOME": str(self.dir)}
        done = subprocess.run([BINARY, *map(str, arguments)], capture_output=True, text=True, timeout=300, env=environment)
        self.assertEqual(done.returncode, returncode, done.stderr + done.stdout)
        return done

    def latency(self, name="latency.json", *more):
        path = self.dir / name
        done = self.run_hadal("bench", "latency", "--model", NANO, "--prefill", "128", "--batch", "1,2", "--depth", "0",
                              "--repetitions", "2", "--ceiling-seconds", "0.5", "--json", path, *more)
        return json.loads(path.read_text()), done.stdout

    def test_plot_draws_written_results(self):
        self.latency()
        chart = self.dir / "chart.svg"
        self.run_hadal("bench", "plot", self.dir / "latency.json", chart)
        xml.dom.minidom.parse(str(chart))
        broken = self.dir / "broken.json"
        broken.write_text("{}")
        self.assertIn("broken.json", self.run_hadal("bench", "plot", broken, chart, returncode=1).stderr)

    def test_load_writes_the_documented_json(self):
        path = self.dir / "load.json"
        table = self.run_hadal("bench", "load", "--model", NANO, "--json", path).stdout
        report = json.loads(path.read_text())
        self.assertEqual(report["kind"], "load")
        self.assertGreater(report["read_bytes"], 1_000_000)
        self.assertAlmostEqual(report["bytes_per_s"] * report["seconds"], report["read_bytes"], delta=1)
        self.assertGreater(report["first_touch_bytes_per_s"], 0)
        self.assertTrue(report["disk_bytes_per_s"] > 0 or report["disk_note"])
        self.assertGreaterEqual(report["peak_resident_bytes"], report["weight_bytes"])
        self.assertIn("first touch", table)

    def test_plan_tells_what_fits(self):
        shape = REPOSITORY / "bench/shapes/r1_slice.json"
        done = self.run_hadal("plan", "--model", shape, "--machine", "8x-h200", "--json")
        self.assertEqual(json.loads(done.stdout)["plans"][0]["machine"]["name"], "8x-h200")
        shape = REPOSITORY / "bench/shapes/small.json"
        refused = self.run_hadal("plan", "--model", shape, "--machine", "8x-h20", returncode=2)
        self.assertIn("did you mean 8x-h200", refused.stderr)

    def test_latency_writes_the_documented_json(self):
        report, table = self.latency()
        self.assertEqual(set(report), {"kind", "machine", "ceilings", "multiply_format", "model", "flags", "load", "rows",
                                       "others_cores", "notes"})
        self.assertTrue(report["machine"]["cpu_model"])
        self.assertGreater(report["ceilings"]["read_bytes_per_s"], 0)
        load = report["load"]
        self.assertGreater(load["checkpoint_bytes"], 1_000_000)
        self.assertGreater(load["first_token_s"], load["seconds"])
        self.assertGreaterEqual(load["peak_resident_bytes"], load["weight_bytes"])
        self.assertEqual([row["name"] for row in report["rows"]], ["prefill 128", "decode 1", "decode 2"])
        self.assertEqual([row["kind"] for row in report["rows"]], ["prefill", "decode", "decode"])
        self.assertEqual([row["tokens"] for row in report["rows"]], [128, 1, 2])
        for row in report["rows"]:
            self.check_row(row)
            self.assertIn(row["name"], table)
        prefill, one, two = report["rows"]
        self.assertEqual(prefill["repetitions"], 2)
        self.assertGreater(prefill["flops"], 100 * one["flops"])
        self.assertGreater(two["weight_bytes"], one["weight_bytes"], "two tokens visit more experts")
        self.assertAlmostEqual(two["flops"], 2 * one["flops"], delta=0.01 * one["flops"])

    def check_row(self, row):
        for key in SPREADS:
            self.assertLessEqual(row[key]["min"], row[key]["median"])
            self.assertLessEqual(row[key]["median"], row[key]["max"])
            self.assertGreater(row[key]["min"], 0)
        for key in NUMBERS:
            self.assertGreater(row[key], 0, key)
        self.assertEqual(list(row["shares"]), LOSSES)
        self.assertAlmostEqual(sum(row["shares"].values()), 1, places=6)

    def test_plots_and_compares(self):
        svg = self.dir / "chart.svg"
        a, _ = self.latency("a.json", "--plot", svg)
        document = xml.dom.minidom.parse(str(svg))
        self.assertEqual(document.documentElement.tagName, "svg")
        texts = [node.firstChild.data for node in document.getElementsByTagName("text")]
        for text in ["prefill 128", "decode 2", "tokens per second", "experts"]:
            self.assertIn(text, texts)

        faster = json.loads(json.dumps(a))
        for row in faster["rows"]:
            for key in ["median", "min", "max"]:
                row["tokens_per_s"][key] *= 4
        (self.dir / "b.json").write_text(json.dumps(faster))
        for command in [["bench", "compare"], ["bench", "latency", "--compare"]]:
            out = self.run_hadal(*command, self.dir / "a.json", self.dir / "b.json").stdout
            self.assertIn("decode 1", out)
            self.assertIn("4.000", out)
        (self.dir / "b.json").write_text("{\"rows\": 3}")
        self.assertIn("not a result", self.run_hadal("bench", "compare", self.dir / "a.json", self.dir / "b.json",
                                                     returncode=1).stderr)

    def test_rows_without_room_are_left_out_with_a_reason(self):
        out = self.run_hadal("bench", "latency", "--model", NANO, "--prefill", "128", "--batch", "1", "--depth",
                             "9999999", "--repetitions", "1", "--ceiling-seconds", "0.2").stdout
        self.assertIn("decode 1 @9999999 left out", out)
        self.assertIn("prefill 128 ", out)

    def test_throughput_counts_every_token(self):
        path = self.dir / "t.json"
        self.run_hadal("bench", "throughput", "--model", NANO, "--num-prompts", "7", "--input-len", "40", "--output-len",
                       "9", "--max-num-seqs", "3", "--json", path)
        row = json.loads(path.read_text())["rows"][0]
        self.assertEqual((row["completed"], row["failed"]), (7, 0))
        self.assertEqual((row["total_input_tokens"], row["total_output_tokens"]), (280, 63))
        self.assertLessEqual(row["ttft_s"]["median"], row["ttft_s"]["p99"])
        self.assertGreaterEqual(row["steps"], 3 * 9, "three turns of at most three requests")
        self.assertAlmostEqual(sum(row["shares"].values()), 1, places=6)

    def test_tuned_settings_are_kept_and_a_broken_file_is_only_a_warning(self):
        self.run_hadal("bench", "tune", "--model", NANO, "--threads", "1", "--rounds", "1")
        cache = self.dir / "hadal/tuning.json"
        self.assertEqual(json.loads(cache.read_text())["entries"][0]["num_threads"], 1)
        report, _ = self.latency()
        self.assertEqual(report["flags"]["threads"], 1)
        cache.write_text("{")
        done = self.run_hadal("bench", "throughput", "--model", NANO, "--num-prompts", "1", "--output-len", "2")
        self.assertIn("tuning.json", done.stderr)

    def test_live_reads_a_running_server(self):
        with Server() as server:
            server.post("/v1/completions", {"prompt": "The capital of France is", "max_tokens": 4})
            path = self.dir / "live.json"
            out = self.run_hadal("bench", "live", "--url", server.url, "--seconds", "0.2", "--json", path).stdout
            self.assertIn("running", out)
            self.assertIn("experts", json.loads(path.read_text())["phases"])
        self.assertIn("nobody listens", self.run_hadal("bench", "live", "--url", server.url, "--seconds", "0.1",
                                                       returncode=1).stderr)

    def test_refuses_what_it_cannot_do(self):
        for arguments in [["latency"], ["latency", "--model", NANO, "--repetitions", "0"],
                          ["latency", "--model", NANO, "--batch", "0"], ["throughput", "--model", NANO, "--input-len", "0"],
                          ["kernels", "--model", NANO, "--isa", "sse9"], ["live", "--url", "ftp://x"], ["unknown"]]:
            self.run_hadal("bench", *arguments, returncode=2)


if __name__ == "__main__":
    unittest.main()
