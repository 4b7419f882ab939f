"""DeepSeek-R1's control tokens after the base vocabulary, with R1's flags."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Marker:
    content: str
    special: bool = False
    normalized: bool = True


MARKERS = [Marker(content) for content in (
    "<think>", "</think>", "<｜fim▁hole｜>", "<｜fim▁begin｜>", "<｜fim▁end｜>", "<｜User｜>", "<｜Assistant｜>")]
MARKERS += [Marker("<|EOT|>", special=True)]
MARKERS += [Marker(content) for content in (
    "<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>", "<｜tool▁call▁begin｜>", "<｜tool▁call▁end｜>",
    "<｜tool▁outputs▁begin｜>", "<｜tool▁outputs▁end｜>", "<｜tool▁output▁begin｜>", "<｜tool▁output▁end｜>", "<｜tool▁sep｜>")]
