"""Hooks of the site: formulas become MathML, which browsers draw without a script; links out of docs/ become file names."""

import html
import re

from latex2mathml.converter import convert

FORMULA = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL)
OUTSIDE = re.compile(r"\[([^\]]+)\]\(\.\./([^)\s]+)\)")


MATH = re.compile(r"^```math\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def on_page_markdown(markdown: str, **_: object) -> str:
    """GitHub's ```math becomes $$; ``[text](../src/file.py)``, which leads nowhere on the site, the text and the file's name."""

    def named(match: "re.Match[str]") -> str:
        text, path = match[1], match[2]
        name = f"`{path}`"
        return name if text.strip("`") in path else f"{text} ({name})"

    return MATH.sub(r"$$\n\1$$", OUTSIDE.sub(named, markdown))


def on_page_content(content: str, **_: object) -> str:
    """Replace what pymdownx.arithmatex marked."""

    def mathml(match: "re.Match[str]") -> str:
        display = "block" if match[1] == "div" else "inline"
        return str(convert(html.unescape(match[2]).strip(), display=display))

    return FORMULA.sub(mathml, content)
