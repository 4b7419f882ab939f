"""Runs the table of acceptance checks, one test per check: acceptance_test.Acceptance.test_07 is check 7."""
from __future__ import annotations

import unittest

import acceptance_chat  # noqa: F401, each fills the table
import acceptance_completions  # noqa: F401
import acceptance_load  # noqa: F401
import acceptance_server  # noqa: F401
from acceptance_table import TABLE, Check
from serving import Server


class Acceptance(unittest.TestCase):
    shared: Server | None = None

    @classmethod
    def tearDownClass(cls):
        if cls.shared is not None:
            cls.shared.stop()

    def run_check(self, check: Check) -> None:
        if check.own_server is not None:
            with Server(args=check.own_server) as server:
                remark = check.run(server)
        else:
            if Acceptance.shared is None:
                Acceptance.shared = Server().__enter__()
            remark = check.run(Acceptance.shared)
        print(f"check {check.number:2}: {check.asks}" + (f" [{remark}]" if remark else ""), flush=True)

    def test_table_is_complete(self):
        self.assertEqual(sorted(check.number for check in TABLE), list(range(1, 41)))


for _check in TABLE:
    setattr(Acceptance, f"test_{_check.number:02}", lambda self, check=_check: self.run_check(check))

if __name__ == "__main__":
    unittest.main()
