"""Tokens and log-probabilities are those of one process, whatever the number of ranks."""
import subprocess
import unittest

from ranks import all_answers, pids_by_rank, ranked
from serving import Server


class Equality(unittest.TestCase):
    maxDiff = 2000

    def test_tensor_parallel(self):
        with Server() as server:
            expected = all_answers(server)
        for num_ranks in (2, 4):
            with self.subTest(num_ranks=num_ranks), ranked(num_ranks) as server:
                self.assertEqual(sorted(pids_by_rank(server)), list(range(num_ranks)), server.lines)
                for got, wanted in zip(all_answers(server), expected, strict=True):
                    self.assertEqual(got, wanted)

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
                for got, wanted in zip(all_answers(server), expected, strict=True):
                    self.assertEqual(got, wanted)

    def test_a_degree_that_the_model_does_not_allow(self):
        server = ranked(3)
        ended = subprocess.run(server.command, capture_output=True, text=True, timeout=120, cwd="../..")
        self.assertEqual(ended.returncode, 2, ended.stderr)
        self.assertRegex(ended.stderr, r"1, 2,? (and |or )?4|1, 2, 4")


if __name__ == "__main__":
    unittest.main()
