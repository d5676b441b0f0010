"""One self-contained HTML page of charts and text, for light and dark mode.

The page needs no server and no network. Every text from a study is escaped. Only Plotly and the
figures' data are scripts, and a policy in the page forbids them to load anything.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from plotly.offline import get_plotlyjs

from tunesvc.charts.chart import Chart

_CSS = """
:root { color-scheme: light dark;
  --ground: #f6f7f9; --card: #fff; --ink: #1b2130; --soft: #5b6472; --line: #e3e6eb; --accent: #12877a; }
@media (prefers-color-scheme: dark) { :root {
  --ground: #0f1218; --card: #171b23; --ink: #e7eaf0; --soft: #9aa3b2; --line: #2b313c; --accent: #2cc7b4; } }
* { box-sizing: border-box }
body { margin: 0; background: var(--ground); color: var(--ink); font: 15px/1.5 system-ui, sans-serif }
main { max-width: 1240px; margin: 0 auto; padding: 28px 20px 60px }
h1 { font-size: 26px; margin: 0 10px 0 0; display: inline; overflow-wrap: anywhere }
h2 { font-size: 15px; margin: 0; overflow-wrap: anywhere }
.badge { border: 1px solid var(--line); border-radius: 99px; padding: 2px 10px; font-size: 13px; color: var(--soft);
  vertical-align: 4px; white-space: nowrap }
.about { color: var(--soft); margin: 6px 0 20px; overflow-wrap: anywhere }
.facts { display: flex; flex-wrap: wrap; gap: 12px; margin: 0 0 14px; padding: 0 }
.facts div { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 10px 16px }
.facts dt { color: var(--soft); font-size: 12px }
.facts dd { margin: 0; font-size: 19px; font-variant-numeric: tabular-nums }
.grid { display: grid; grid-template-columns: repeat(2, minmax(0, 1fr)); gap: 14px; grid-auto-flow: dense }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 14px 16px;
  min-width: 0 }
.wide { grid-column: 1 / -1 }
.note { color: var(--soft); font-size: 13px; min-height: 1.5em }
.empty { color: var(--soft); text-align: center; padding: 60px 10px }
.scroll { overflow-x: auto }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 14px; width: 100% }
th { text-align: left; color: var(--soft); font-weight: 500 }
th, td { padding: 5px 18px 5px 0; border-bottom: 1px solid var(--line); white-space: nowrap }
.statements { display: grid; grid-template-columns: minmax(90px, auto) 1fr; gap: 4px 16px; margin: 8px 0 0 }
.statements dt { color: var(--soft); font-size: 13px; padding-top: 1px }
.statements dd { margin: 0; overflow-wrap: anywhere }
pre { font: 13px/1.5 ui-monospace, Menlo, monospace; white-space: pre-wrap; overflow-wrap: anywhere; margin: 10px 0 0;
  background: var(--ground); border-radius: 8px; padding: 10px 12px }
.first-page { margin-bottom: 14px }
.first-page .statements { gap: 10px 20px; font-size: 16px; line-height: 1.45 }
.first-page .statements dt { font-size: 14px; font-weight: 600; color: var(--ink) }
@media print {
  .first-page { break-after: page } .first-page .statements { gap: 5px 16px; font-size: 14px }
  .facts { gap: 8px } .facts div { padding: 5px 10px } .facts dd { font-size: 15px }
  :root { color-scheme: light; --ground: #fff; --card: #fff; --ink: #000; --soft: #444; --line: #ccc }
  main { padding: 0; max-width: none } .grid { display: block } .card { border: 0; padding: 8px 0; margin: 0 }
  .card:has(.js-plotly-plot), tr, dd { break-inside: avoid } h2 { break-after: avoid } pre { padding: 0 }
  .scroll { overflow: visible } th, td { white-space: normal; padding-right: 8px; font-size: 11px } }
@media (max-width: 860px) { .grid { grid-template-columns: minmax(0, 1fr) } }
/* Plotly writes colours into the drawing; these follow the reader's mode */
.js-plotly-plot .main-svg text { fill: var(--ink) !important; text-shadow: none !important }
.js-plotly-plot .main-svg .hoverlayer text { fill: #fff !important }
.js-plotly-plot .gridlayer path, .js-plotly-plot .zerolinelayer path { stroke: var(--line) !important }
.js-plotly-plot .parcoords .axis path, .js-plotly-plot .parcoords .axis line { stroke: var(--soft) !important }
"""

_PRINTING = """
const figures = () => document.querySelectorAll(".js-plotly-plot");
addEventListener("beforeprint", () => figures().forEach((one) => Plotly.relayout(one, { width: 680 })));
addEventListener("afterprint", () => figures().forEach((one) => Plotly.relayout(one, { width: null, autosize: true })));
"""
"""Resizes the figures for print: paper is narrower than a screen."""

# Plotly needs 'unsafe-eval' to compile WebGL drawings.
_POLICY = "default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval'; style-src 'unsafe-inline'; img-src data: blob:"


@dataclass(frozen=True, slots=True)
class Sentences:
    """Sentences with their topics."""

    statements: Sequence[tuple[str, str]]
    """(topic, sentence) each."""


@dataclass(frozen=True, slots=True)
class TableBlock:
    """A table with headings."""

    heads: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True, slots=True)
class CodeBlock:
    """Preformatted text."""

    text: str


@dataclass(frozen=True, slots=True)
class Card:
    """A titled part of the page that is not a chart."""

    title: str
    parts: Sequence[Sentences | TableBlock | CodeBlock]
    note: str = ""
    is_wide: bool = True


def page(
    title: str,
    cards: Sequence[Card | Chart],
    *,
    badge: str = "",
    about: str = "",
    facts: Mapping[str, str] | None = None,
    first_page: Sequence[Card | Chart] = (),
) -> str:
    """Return a whole HTML document.

    Args:
        title: Name of the study.
        cards: Cards and charts in their order.
        badge: Text beside the title, such as the state.
        about: Text below the title.
        facts: Short figures by name.
        first_page: Cards and charts before the others, which are alone on the first printed page.
    """
    name = html.escape(title)
    first = _grid(first_page, "first", "first-page") if first_page else ""
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{name} · tunesvc</title>
<style>{_CSS}</style>
<script>{get_plotlyjs()}</script>
<script>{_PRINTING}</script>
</head>
<body><main>
<h1>{name}</h1>{f'<span class="badge">{html.escape(badge)}</span>' if badge else ""}
<p class="about">{html.escape(about)}</p>
{_facts(facts or {})}
{first}
{_grid(cards, "chart", "")}
</main></body>
</html>
"""


def _grid(cards: Sequence[Card | Chart], anchor: str, kind: str) -> str:
    sections = []
    for i, one in enumerate(cards):
        sections.append(_chart(f"{anchor}{i}", one) if isinstance(one, Chart) else _card(one))
    shown = "\n".join(sections)
    return f'<div class="grid {kind}">\n{shown}\n</div>'


def _facts(facts: Mapping[str, str]) -> str:
    items = [f"<div>{_term(name, text)}</div>" for name, text in facts.items()]
    return f'<dl class="facts">{"".join(items)}</dl>'


def _term(name: str, text: str) -> str:
    return f"<dt>{html.escape(name)}</dt><dd>{html.escape(text)}</dd>"


def _card(card: Card) -> str:
    note = f'<div class="note">{html.escape(card.note)}</div>' if card.note else ""
    parts = "".join(_part(part) for part in card.parts)
    wide = " wide" if card.is_wide else ""
    title = html.escape(card.title)
    return f'<section class="card{wide}"><h2>{title}</h2>{note}{parts}</section>'


def _part(part: Sentences | TableBlock | CodeBlock) -> str:
    match part:
        case Sentences(statements):
            items = "".join(_term(topic, text) for topic, text in statements)
            return f'<dl class="statements">{items}</dl>'
        case CodeBlock(text):
            return f"<pre>{html.escape(text)}</pre>"
        case TableBlock(heads, rows):
            head = _table_row("th", heads)
            body = "".join(_table_row("td", row) for row in rows)
            table = f"<table><thead>{head}</thead><tbody>{body}</tbody></table>"
            return f'<div class="scroll" tabindex="0">{table}</div>'


def _table_row(tag: str, cells: Sequence[str]) -> str:
    escaped = "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells)
    return f"<tr>{escaped}</tr>"


def _chart(anchor: str, chart: Chart) -> str:
    title = html.escape(chart.title)
    note = html.escape(chart.note)
    if chart.figure is None:
        return f'<section class="card"><h2>{title}</h2><p class="empty">{note}</p></section>'
    drawing = chart.figure.to_html(
        full_html=False,
        include_plotlyjs=False,
        div_id=anchor,
        config={"responsive": True, "displaylogo": False, "displayModeBar": False},
    )
    wide = " wide" if chart.wide else ""
    head = f'<h2>{title}</h2><div class="note">{note}</div>'
    return f'<section class="card{wide}">{head}{drawing}</section>'
