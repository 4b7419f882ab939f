"""What deploy/ and docs/multi-node.md tell people to type: files that parse, flags that exist, pods and jobs that make sense."""
from __future__ import annotations

import os
import re
import shlex
import subprocess
import tempfile
import unittest
from pathlib import Path

from serving import REPOSITORY

try:
    import yaml
except ImportError:
    yaml = None

BINARY = Path(os.environ.get("HADAL_BUILD_DIR", REPOSITORY / "build/release")) / "bin/hadal"
GROUP = REPOSITORY / "deploy/kubernetes/leader-worker-set/hadal.yaml"
JOB = REPOSITORY / "deploy/slurm/hadal.sbatch"
GUIDE = REPOSITORY / "docs/multi-node.md"


def flags_of(*command: str) -> set[str]:
    text = subprocess.run([str(BINARY), *command, "--help"], capture_output=True, text=True, timeout=60).stdout
    return set(re.findall(r"--[a-z][a-z0-9-]+", text))


def commands_in(text: str) -> list[tuple[str, list[str]]]:
    """-> subcommand and flags of every `hadal serve` and `hadal worker` of a text."""
    text = text.replace("\\\n", " ").replace('"${HADAL:-hadal}"', "hadal")
    return [(match[1], re.findall(r"(?<=\s)--[a-z][a-z0-9-]+", match[2]))
            for match in re.finditer(r"\bhadal (serve|worker)\b([^\n`|&]*)", text)]


class Commands(unittest.TestCase):
    def test_every_flag_of_a_command_exists(self):
        for file, at_least in ((GUIDE, 12), (JOB, 1), (REPOSITORY / "deploy/README.md", 1)):
            commands = commands_in(file.read_text())
            self.assertGreaterEqual(len(commands), at_least, str(file))
            for command, flags in commands:
                self.assertEqual(set(flags) - flags_of(command), set(), f"{file}: hadal {command}")

    def test_every_flag_that_the_guide_mentions_exists(self):
        ours = set(re.findall(r"`(--[a-z][a-z0-9-]+)", GUIDE.read_text()))
        of_launchers = {"--bind-to"}
        self.assertGreater(len(ours), 8)
        self.assertEqual(ours - of_launchers - flags_of("serve") - flags_of("comm", "check"), set())

    def test_every_variable_that_the_guide_mentions_is_read(self):
        named = set(re.findall(r"`((?:HADAL|SLURM|LWS|PMI|MPI|OMPI)_[A-Z_]+)\*?`", GUIDE.read_text()))
        source = "".join(path.read_text() for path in (REPOSITORY / "src/cli").glob("*.cc"))
        self.assertGreater(len(named), 18)
        self.assertEqual({name for name in named if f'"{name}' not in source}, set())


class BatchScript(unittest.TestCase):
    """With a scontrol and an srun of our own, whose task only explains its options."""

    def test_what_it_starts(self):
        self.assertEqual(subprocess.run(["bash", "-n", str(JOB)]).returncode, 0)
        fakes = "scontrol() { printf 'node7\\nnode8\\n'; }; srun() { echo \"srun $*\"; echo \"token ${#HADAL_AUTH_TOKEN}\"; while [[ $1 == -* ]]; do shift; done; \"$@\" --explain-config; }; export -f scontrol srun\n"
        env = {**os.environ, "MODEL": "/data/m", "SLURM_JOB_NODELIST": "node[7-8]", "SLURM_JOB_NUM_NODES": "2", "RANKS_PER_NODE": "2",
               "HADAL": str(BINARY), "ARGS": "--max-num-seqs 16"}
        env.pop("HADAL_AUTH_TOKEN", None)
        done = subprocess.run(["bash", "-c", f"{fakes}bash {shlex.quote(str(JOB))}"], env=env, capture_output=True, text=True, timeout=60)
        self.assertEqual(done.returncode, 0, done.stderr)
        for text in ("http://node7:8000", "hadal serve --model /data/m --tensor-parallel-size 4 --master-addr node7", "--max-num-seqs 16",
                     "token 32"):
            self.assertIn(text, done.stdout)
        self.assertRegex(done.stdout, r"tensor-parallel-size +4 +flag")

    def test_it_needs_a_model(self):
        done = subprocess.run(["bash", str(JOB)], env={"PATH": os.environ["PATH"]}, capture_output=True, text=True, timeout=60)
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("MODEL", done.stderr)


@unittest.skipIf(yaml is None, "this Python has no yaml")
class Group(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.documents = {document["kind"]: document for document in yaml.safe_load_all(GROUP.read_text())}
        template = cls.documents["LeaderWorkerSet"]["spec"]["leaderWorkerTemplate"]
        cls.size = template["size"]
        cls.leader, cls.worker = template["leaderTemplate"], template["workerTemplate"]

    def container(self, template: dict) -> dict:
        return template["spec"]["containers"][0]

    def test_the_leader_reads_options_that_exist(self):
        options = yaml.safe_load(self.documents["ConfigMap"]["data"]["serve.yaml"])
        self.assertEqual({f"--{name}" for name in options} - flags_of("serve"), set())
        self.assertEqual(self.container(self.leader)["args"], ["serve", "--config", "/etc/hadal/serve.yaml"])
        self.assertEqual(options["tensor-parallel-size"] % self.size, 0)
        with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
            file.write(self.documents["ConfigMap"]["data"]["serve.yaml"])
            file.flush()
            done = subprocess.run([str(BINARY), "serve", "--explain-config", "--config", file.name], capture_output=True, text=True,
                                  timeout=60)
        self.assertEqual(done.returncode, 0, done.stderr)

    def test_workers_are_told_the_same_number_of_ranks(self):
        args = self.container(self.worker)["args"]
        options = yaml.safe_load(self.documents["ConfigMap"]["data"]["serve.yaml"])
        self.assertEqual(args[0], "worker")
        self.assertEqual({word for word in args if word.startswith("--")} - flags_of("worker"), set())
        self.assertEqual(int(args[args.index("--tensor-parallel-size") + 1]), options["tensor-parallel-size"])

    def test_the_secret_is_no_argument_and_reaches_both(self):
        for template in (self.leader, self.worker):
            variables = {entry["name"]: entry for entry in self.container(template)["env"]}
            self.assertEqual(variables["HADAL_AUTH_TOKEN"]["valueFrom"]["secretKeyRef"]["key"], "token")
            self.assertFalse(template["spec"]["enableServiceLinks"])

    def test_requests_go_to_the_leader(self):
        labels, selector = self.leader["metadata"]["labels"], self.documents["Service"]["spec"]["selector"]
        self.assertLessEqual(selector.items(), labels.items())
        self.assertFalse(selector.items() <= self.worker["metadata"]["labels"].items())
        self.assertEqual(self.container(self.leader)["readinessProbe"]["httpGet"]["path"], "/health/ready")


if __name__ == "__main__":
    unittest.main()
