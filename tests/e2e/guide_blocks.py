"""The commands of docs/from-the-guide*.md.

A fenced block with the info string `bash run ..` is ours and is executed; other blocks are shown only. Further words:
  server       starts a server: goes on when it is ready; it ends with the section (##) or the node's next server
  background   goes on at once; ends with the section
  node=NAME    on this node (head, worker) instead of the machine itself
  needs=WHAT   only where there is such a thing (guide_test.py lists them)
`#=> REGEX` at the end of a command: what the block prints must match."""
from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path


@dataclass
class Block:
    text: str
    words: list[str]  # of the info string, after `bash`
    section: str      # the heading of level 2 above it
    line: int

    @property
    def runs(self) -> bool:
        return "run" in self.words

    def value(self, name: str) -> str | None:
        return next((word.split("=", 1)[1] for word in self.words if word.startswith(name + "=")), None)

    @property
    def expected(self) -> list[str]:
        return [match.strip() for match in re.findall(r"#=> (.*)$", self.text, re.M)]


def parse_blocks(path: Path) -> list[Block]:
    blocks, section, block = [], "", None
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if block is None and line.startswith("```"):
            language, *words = line[3:].split() or [""]
            block = Block("", words if language == "bash" else [], section, number)
        elif block is not None and line == "```":
            blocks.append(block)
            block = None
        elif block is not None:
            block.text += line + "\n"
        elif line.startswith("## "):
            section = line[3:]
    assert block is None, f"{path}: the block of line {block.line} has no end"
    return blocks
