"""The frame of a report: one self-contained HTML page, light or dark, narrow or wide."""

import base64
from html import escape
from pathlib import Path

# The policy forbids every request, so a page that carries hostile names can still load nothing.
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
CSS = """
:root { color-scheme: light dark; --page: #f6f7f9; --card: #ffffff; --ink: #1d2329; --soft: #5a6570;
  --line: #dde2e8; --accent: #0072b2; --bad: #b3261e; --bad-page: #fdecea; }
@media (prefers-color-scheme: dark) { :root { --page: #14181d; --card: #1d232a; --ink: #e6eaee; --soft: #9aa6b2;
  --line: #343d47; --accent: #56b4e9; --bad: #ff8a80; --bad-page: #3a1d1c; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); font: 16px/1.55 system-ui, sans-serif; }
main { max-width: 1120px; margin: 0 auto; padding: 24px 16px 48px; }
h1 { font-size: 1.55rem; line-height: 1.25; margin: 0 0 4px; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 0 0 10px; }
h3 { font-size: 1rem; margin: 18px 0 6px; }
section, header { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 18px 20px;
  margin: 0 0 16px; }
.lead { font-size: 1.1rem; max-width: 75ch; margin: 12px 0 0; }
p { max-width: 85ch; margin: 8px 0 10px; overflow-wrap: anywhere; } li { overflow-wrap: anywhere; }
.small, small { font-size: .84rem; color: var(--soft); }
.label { color: var(--bad); background: var(--bad-page); border: 1px solid var(--bad); border-radius: 6px;
  font-weight: 700; padding: 2px 10px; width: fit-content; margin: 6px 0 10px; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 10px; margin-top: 16px; }
.tile { border: 1px solid var(--line); border-radius: 8px; padding: 10px 12px; }
.tile .small { display: block; }
.tile b { display: block; font-size: 1.6rem; line-height: 1.2; color: var(--accent); }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 500px), 1fr)); column-gap: 16px; }
.pair section { min-width: 0; } .pair table { width: 100%; min-width: 0; }
.pair th, .pair td { padding: 5px 5px; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; min-width: min(100%, 640px); }
th, td { text-align: right; padding: 5px 12px; border-bottom: 1px solid var(--line); vertical-align: top; }
th { font-weight: 500; } th[scope=row], th:first-child { text-align: left; padding-left: 0; }
tbody th { white-space: nowrap; }
thead th { color: var(--soft); border-bottom: 2px solid var(--line); }
td b { font-weight: 600; }
.interval { display: block; font-size: .8rem; color: var(--soft); white-space: nowrap; }
.baseline th, .baseline td, .none { color: var(--soft); } .baseline th { font-style: italic; }
.note { cursor: help; color: var(--accent); }
.pictures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 420px), 1fr)); gap: 14px; }
figure { margin: 0; background: #fff; border: 1px solid var(--line); border-radius: 8px; padding: 8px;
  display: flex; align-items: center; justify-content: center; }
figure img { display: block; width: 100%; max-width: 560px; height: auto; }
figure.wide { overflow-x: auto; justify-content: safe center; } figure.wide img { min-width: 480px; }
figure.full { margin: 12px 0; } figure.full img { width: auto; max-width: min(100%, 1000px); } figure.full.wide img { min-width: 560px; }
pre { overflow-x: auto; background: var(--page); border-radius: 8px; padding: 12px; font-size: .82rem; margin: 8px 0 0; }
details { margin: 8px 0; } summary { cursor: pointer; color: var(--accent); }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 4px 16px; font-size: .9rem; margin: 8px 0 0; }
dd { margin: 0; overflow-wrap: anywhere; } dt { color: var(--soft); }
a { color: var(--accent); }
@media (max-width: 560px) { body { font-size: 15px; } main { padding: 10px 8px 32px; }
  section, header { padding: 14px 12px; } th, td, .pair th, .pair td { padding: 5px 3px; }
  table { font-size: .84rem; } .interval { font-size: .74rem; }
  tbody th { white-space: normal; } dl { grid-template-columns: 1fr; gap: 0; } dd { margin-bottom: 8px; } }
@media print { section, header { break-inside: avoid; } body { background: #fff; } }
"""


WIDE = (
    850  # pixels, above which a picture scrolls by itself on a narrow screen, so that its text stays readable
)


def page(title: str, body: str) -> str:
    """A whole HTML document; ``title`` is plain text, ``body`` is HTML."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{CSS}</style></head>\n<body><main>\n{body}\n</main></body></html>\n"
    )


def section(title: str, body: str) -> str:
    """A titled card; ``title`` is plain text, ``body`` is HTML."""
    return f"<section><h2>{escape(title)}</h2>{body}</section>"


def paragraph(text: str, kind: str = "") -> str:
    """A paragraph of plain text."""
    return f'<p class="{kind}">{escape(text)}</p>'


def picture(path: Path, alt: str, *, full: bool = False) -> str:
    """A PNG inside the page, or nothing where the file is absent; ``full``: as wide as the page."""
    if not path.is_file():
        return ""
    content = path.read_bytes()
    data = base64.b64encode(content).decode("ascii")
    # A PNG's width stands in its header (ISO/IEC 15948, 11.2.2).
    kinds = ["full"] * full + ["wide"] * (int.from_bytes(content[16:20], "big") > WIDE)
    wide = f' class="{" ".join(kinds)}"' if kinds else ""
    return f'<figure{wide}><img alt="{escape(alt)}" src="data:image/png;base64,{data}"></figure>'
