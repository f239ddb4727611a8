"""A page as a reader and a browser meet it: texts, tables, pictures, links."""

import base64
from html.parser import HTMLParser
from pathlib import Path

VOID = {"img", "br", "meta", "input", "hr", "link", "area", "base", "embed", "source"}
FORBIDDEN = {"script", "link", "iframe", "object", "embed", "base", "form"}


class Page(HTMLParser):
    """Parsed HTML.

    Attributes:
        text: of the body, white space collapsed.
        labels: texts of the red labels, in order.
        rows: cells of each table row as text, the heading first.
        images: content of each embedded picture; alts: their descriptions.
        links: targets of ``a``.
        reached: every attribute that could load something from elsewhere.
        tags: names of all elements; open: elements that were not closed.
    """

    def __init__(self, content: str | Path) -> None:
        super().__init__()
        self.labels: list[str] = []
        self.rows: list[list[str]] = []
        self.images: list[bytes] = []
        self.alts: list[str] = []
        self.links: list[str] = []
        self.reached: list[str] = []
        self.tags: set[str] = set()
        self.open: list[tuple[str, str]] = []
        self.title = ""
        self._words: list[str] = []
        self.feed(content if isinstance(content, str) else content.read_text(encoding="utf-8"))
        self.text = " ".join(" ".join(self._words).split())
        self.rows = [[" ".join(cell.split()) for cell in row] for row in self.rows]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        for name, given in attrs:
            value = given or ""
            if tag == "img" and name == "src":
                head, _, data = value.partition(",")
                assert head in ("data:image/png;base64", "data:image/jpeg;base64"), head
                self.images.append(base64.b64decode(data, validate=True))
            elif tag == "img" and name == "alt":
                self.alts.append(value)
            elif tag == "a" and name == "href":
                self.links.append(value)
            elif name in ("src", "href", "srcset", "action", "background") or name.startswith("on"):
                self.reached.append(f"{tag} {name}={value}")
        kind = dict(attrs).get("class") or ""
        if tag not in VOID:
            self.open.append((tag, kind))
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        if kind == "label":
            self.labels.append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop()[0] == tag

    def handle_data(self, data: str) -> None:
        names = [name for name, _ in self.open]
        if "title" in names:
            self.title += data
        if "body" not in names:
            return
        self._words.append(data)
        if names[-1] != "tr" and ("td" in names or "th" in names):
            self.rows[-1][-1] += f" {data}"
        if self.open[-1] == ("p", "label"):
            self.labels[-1] += data

    def row(self, heading: str, number: int = 0) -> list[str]:
        """The cells of the ``number``-th row of that heading."""
        return [row[1:] for row in self.rows if row and row[0] == heading][number]

    def is_self_contained(self) -> bool:
        """Whether nothing but what is inside the file can be loaded, and links lead to files beside it or to itself."""
        inside = all(":" not in link and not link.startswith("//") for link in self.links)
        return not self.reached and self.tags.isdisjoint(FORBIDDEN) and inside and not self.open
