"""Compares the chat template with reference renders of DeepSeek-R1's: [{template, case, context, expected | error}]."""

import argparse
import json
import sys
from pathlib import Path

import jinja2
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

TEMPLATE = Path(__file__).parent / "chat_template.jinja"


def environment() -> ImmutableSandboxedEnvironment:
    """As in Python transformers."""
    return ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])


def agrees(template: jinja2.Template, case: dict) -> bool:
    try:
        shown = template.render(**case["context"])
    except Exception:  # noqa: BLE001 - the reference fails on such input too
        return "error" in case
    return "error" not in case and shown == case["expected"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("golden", type=Path)
    parser.add_argument("--name", default="chat_template_deepseek-r1.jinja")
    arguments = parser.parse_args()
    template = environment().from_string(TEMPLATE.read_text(encoding="utf-8"))
    cases = [c for c in json.loads(arguments.golden.read_text(encoding="utf-8")) if c["template"] == arguments.name]
    wrong = [c["case"] for c in cases if not agrees(template, c)]
    print(f"{len(cases) - len(wrong)} passed, {len(wrong)} failed", *wrong)
    sys.exit(bool(wrong) or not cases)


if __name__ == "__main__":
    main()
