"""The README tells the truth: its tables are the program's, and what it points to is there."""

from __future__ import annotations

import re
from pathlib import Path

from docs.reference import README, with_tables

ROOT = Path(__file__).resolve().parent.parent


def test_the_tables_of_commands_and_keys_are_the_programs_own() -> None:
    text = README.read_text()
    assert with_tables(text) == text, "run: python docs/reference.py"


def test_every_picture_and_every_module_named_exists() -> None:
    text = README.read_text()
    for picture in re.findall(r"!\[.*?\]\((.*?)\)", text):
        assert (ROOT / picture).is_file(), picture
    tree = text.split("## The tree")[1].split("```")[1]
    folder = ""
    for line in tree.strip().splitlines():
        for name in re.findall(r"(?:^|\s\s)([a-z_]+(?:/|\.py))", line):
            place = name if line.startswith(name) else folder + name
            folder = name if line.startswith(name) and name in ("engine/", "tui_lab/") else folder
            assert (ROOT / place).exists(), place
