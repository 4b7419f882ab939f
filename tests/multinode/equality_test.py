"""Tokens and log-probabilities are those of one process, whatever the number of ranks."""
import json
import os
import subprocess
import tempfile
import unittest
from pathlib import Path

from ranks import all_answers, few_answers, pids_by_rank, ranked
from serving import REPOSITORY, Server

# The shape of the golden data's tiny_v3, where it is not nano's: more and smaller experts, of which more are chosen;
# wider heads, but four of them.
TINY_V3 = {"max_position_embeddings": 256, "moe_intermediate_size": 128, "n_routed_experts": 16,
           "num_attention_heads": 4, "num_experts_per_tok": 4, "num_key_value_heads": 4, "q_lora_rank": 96,
           "qk_nope_head_dim": 32, "routed_scaling_factor": 2.5, "v_head_dim": 32}


def threads_cores(pid: int) -> set[int]:
    """Those that a process's bound threads may run on: of a thread that computes, one."""
    masks = [os.sched_getaffinity(int(task)) for task in os.listdir(f"/proc/{pid}/task")]
    return set().union(*(mask for mask in masks if len(mask) == 1))


def write_tiny_v3(folder: Path) -> None:
    """With nano's tokenizer, and so with its vocabulary."""
    nano = REPOSITORY / "models/nano"
    shape = {**json.loads((nano / "config.json").read_text()), **TINY_V3}
    shape["rope_scaling"] |= {"factor": 4, "original_max_position_embeddings": 64}
    config = folder / "shape.json"
    config.write_text(json.dumps(shape))
    binary = Path(os.environ.get("HADAL_BUILD_DIR", REPOSITORY / "build/release")) / "bin/synth_checkpoint"
    subprocess.run([binary, "--config", config, "--out", folder / "model", "--formula", "tiny", "--tokenizer", nano],
                   check=True, capture_output=True, text=True, timeout=300)


class Equality(unittest.TestCase):
    maxDiff = 2000

    def assert_equal_answers(self, server: Server, answers, expected: list[str]) -> None:
        for got, wanted in zip(answers(server), expected, strict=True):
            self.assertEqual(got, wanted)

    def test_tensor_parallel(self):
        with Server() as server:
            expected = all_answers(server)
        for num_ranks in (2, 4):
            with self.subTest(num_ranks=num_ranks), ranked(num_ranks) as server:
                self.assertEqual(sorted(pids_by_rank(server)), list(range(num_ranks)), server.lines)
                self.assert_equal_answers(server, all_answers, expected)

    def test_other_instructions(self):
        """The sampler's sums are those of --isa, also where ranks sum for it."""
        with Server(args=("--isa", "portable")) as server:
            expected = all_answers(server)
        with ranked(2, "--isa", "portable") as server:
            self.assert_equal_answers(server, all_answers, expected)

    def test_as_many_ranks_as_heads(self):
        """More processes than most machines have processors."""
        with Server() as server:
            expected = few_answers(server)
        for num_ranks in (8, 16):
            with self.subTest(num_ranks=num_ranks), ranked(num_ranks) as server:
                self.assertEqual(sorted(pids_by_rank(server)), list(range(num_ranks)), server.lines)
                self.assert_equal_answers(server, few_answers, expected)

    @unittest.skipIf(len(os.sched_getaffinity(0)) < 2, "one processor")
    def test_ranks_have_cores_of_their_own(self):
        with ranked(2) as server:
            cores = [threads_cores(pid) for _, pid in sorted(pids_by_rank(server).items())]
            self.assertEqual(len(cores), 2)
            self.assertTrue(all(cores), cores)
            self.assertFalse(cores[0] & cores[1], cores)

    def test_slices_of_prompts(self):
        with Server() as server:
            expected = all_answers(server)
        with ranked(2, "--max-itl-ms", "20") as server:
            self.assertEqual(all_answers(server), expected)

    def test_expert_parallel(self):
        """Other sums than without the flag, the same for every number of ranks."""
        with ranked(1, expert_parallel=True) as server:
            expected = all_answers(server)
        for num_ranks in (2, 4):
            with self.subTest(num_ranks=num_ranks), ranked(num_ranks, expert_parallel=True) as server:
                self.assert_equal_answers(server, all_answers, expected)

    def test_as_many_ranks_as_experts(self):
        with ranked(1, expert_parallel=True) as server:
            expected = few_answers(server)
        with ranked(8, expert_parallel=True) as server:
            self.assertEqual(sorted(pids_by_rank(server)), list(range(8)), server.lines)
            self.assert_equal_answers(server, few_answers, expected)

    def test_tiny_v3(self):
        with tempfile.TemporaryDirectory() as folder:
            write_tiny_v3(Path(folder))
            model = f"{folder}/model"
            with Server(model=model) as server:
                expected = few_answers(server)
            for num_ranks in (2, 4):
                with self.subTest(num_ranks=num_ranks), ranked(num_ranks, model=model) as server:
                    self.assert_equal_answers(server, few_answers, expected)
            with ranked(1, expert_parallel=True, model=model) as server:
                expected = few_answers(server)
            with self.subTest("experts"), ranked(4, expert_parallel=True, model=model) as server:
                self.assert_equal_answers(server, few_answers, expected)

    def test_a_degree_that_the_model_does_not_allow(self):
        server = ranked(3)
        ended = subprocess.run(server.command, capture_output=True, text=True, timeout=120, cwd="../..")
        self.assertEqual(ended.returncode, 2, ended.stderr)
        self.assertRegex(ended.stderr, r"1, 2,? (and |or )?4|1, 2, 4")


if __name__ == "__main__":
    unittest.main()
