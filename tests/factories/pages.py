"""Run the Python of a Markdown page: ``python tests/factories/pages.py docs/theory.md`` also redraws its pictures."""

import os
import re
import sys
from pathlib import Path
from typing import Any

BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def python_blocks(page: Path) -> list[tuple[int, str]]:
    """The page's Python blocks with the line of the page that each starts on, in order."""
    text = page.read_text(encoding="utf-8")
    return [(text.count("\n", 0, found.start(1)) + 1, found[1]) for found in BLOCK.finditer(text)]


def run_blocks(page: Path) -> dict[str, Any]:
    """Run all blocks in one namespace, in the current folder; an error shows the page's own line."""
    namespace: dict[str, Any] = {"__name__": page.stem}
    for line, code in python_blocks(page):
        exec(compile("\n" * (line - 1) + code, str(page), "exec"), namespace)
    return namespace


if __name__ == "__main__":
    chosen = Path(sys.argv[1]).resolve()
    os.chdir(chosen.parent)
    run_blocks(chosen)
