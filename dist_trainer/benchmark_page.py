"""The report of a benchmark as one page of HTML with everything inside."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape

from dist_trainer.benchmark_report import Report
from dist_trainer.benchmark_text import (
    TRY_AGAIN,
    by_task,
    caveats,
    failures,
    overall,
    seeds_of,
    summary,
    title_of,
    who_beats_whom,
)

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 74rem; margin: 2rem auto; padding: 0 1rem; color: #1d2330; }
h1, h2, h3 { line-height: 1.2; } h2 { margin-top: 2.5rem; border-bottom: 1px solid #d5d9e2; }
table { border-collapse: collapse; margin: 1rem 0; font-size: 13px; display: block; overflow-x: auto; }
th, td { padding: .25rem .7rem; text-align: right; border-bottom: 1px solid #e6e9ef; white-space: nowrap; }
th { background: #f4f6fa; } td:first-child, th:first-child { text-align: left; }
img { max-width: 100%; } figure { margin: 1.5rem 0; } figcaption { font-size: 13px; color: #5a6273; }
"""


def page(report: Report, pictures: dict[str, bytes]) -> str:
    parts = [f"<h1>Benchmark</h1>{_paragraphs(summary(report))}"]
    for part in report.parts:
        parts.append(f"<h2>{escape(title_of(part))} ({seeds_of(part)})</h2>{_table(overall(part))}")
        parts += [_figure(title, png) for title, png in pictures.items() if title.startswith(f"{part.name}: ")]
        if part.better:
            parts.append(
                "<h3>Who beats whom</h3><p>*: the interval leaves out one half.</p>" + _table(who_beats_whom(part))
            )
        parts.append(f"<h3>By environment</h3>{_table(by_task(part))}")
    parts.append(f"<h2>Failed runs</h2>{_list(failures(report)) or '<p>None.</p>'}")
    parts += [f"<p>{TRY_AGAIN}</p>"] if report.failures else []
    parts.append(f"<h2>What this does not show</h2>{_list(caveats(report))}")
    head = f'<meta charset="utf-8"><title>Benchmark</title><style>{STYLE}</style>'
    return f"<!doctype html><html lang=en><head>{head}</head><body>{''.join(parts)}</body></html>\n"


def _paragraphs(lines: Sequence[str]) -> str:
    return "".join(f"<p>{escape(line)}</p>" for line in lines)


def _list(lines: Sequence[str]) -> str:
    return f"<ul>{''.join(f'<li>{escape(line)}</li>' for line in lines)}</ul>" if lines else ""


def _table(rows: Sequence[Sequence[str]]) -> str:
    header, *body = rows
    head = "".join(f"<th>{escape(cell)}</th>" for cell in header)
    lines = ("".join(f"<td>{escape(cell)}</td>" for cell in row) for row in body)
    return f"<table><tr>{head}</tr>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"


def _figure(title: str, png: bytes) -> str:
    source = base64.b64encode(png).decode()
    caption = f"<figcaption>{escape(title)}</figcaption>"
    return f'<figure><img alt="{escape(title)}" src="data:image/png;base64,{source}">{caption}</figure>'
