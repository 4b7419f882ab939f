"""Tokens and log-probabilities are those of one process, whatever the number of ranks."""
import os
import subprocess
import unittest

from ranks import all_answers, pids_by_rank, ranked
from serving import Server


def threads_cores(pid: int) -> set[int]:
    """Those that a process's bound threads may run on: of a thread that computes, one."""
    masks = [os.sched_getaffinity(int(task)) for task in os.listdir(f"/proc/{pid}/task")]
    return set().union(*(mask for mask in masks if len(mask) == 1))


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
                for got, wanted in zip(all_answers(server), expected, strict=True):
                    self.assertEqual(got, wanted)

    def test_a_degree_that_the_model_does_not_allow(self):
        server = ranked(3)
        ended = subprocess.run(server.command, capture_output=True, text=True, timeout=120, cwd="../..")
        self.assertEqual(ended.returncode, 2, ended.stderr)
        self.assertRegex(ended.stderr, r"1, 2,? (and |or )?4|1, 2, 4")


if __name__ == "__main__":
    unittest.main()
