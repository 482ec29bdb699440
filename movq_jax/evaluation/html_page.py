"""Parts of an HTML page that needs nothing beside it: style, tables, figures."""

import base64
import html
from collections.abc import Iterable, Sequence
from typing import Any

GENERATOR = "movq_jax"

STYLE = """
:root { color-scheme: light; }
body { font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, Arial, sans-serif;
  color: #202124; background: #fff; margin: 0 auto; max-width: 72rem;
  padding: 1rem 1.25rem 3rem; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: .5rem 0 1rem; }
h2 { font-size: 1.25rem; margin: 2.2rem 0 .5rem; padding-top: .8rem;
  border-top: 1px solid #dadce0; }
h3 { font-size: 1rem; margin: 1.4rem 0 .3rem; }
p { max-width: 46rem; margin: .4rem 0 .8rem; }
.note { color: #4a4e52; font-size: .92rem; }
.warning { border-left: 4px solid #b5371f; padding: .1rem .8rem; background: #fdf3f0; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .92rem; margin: .4rem 0 1rem; }
caption { text-align: left; color: #4a4e52; padding: .2rem 0; }
th, td { padding: .3rem .7rem; text-align: right; border-bottom: 1px solid #e3e5e8;
  font-variant-numeric: tabular-nums; white-space: nowrap; }
th { font-weight: 600; background: #f5f6f7; white-space: normal;
  vertical-align: bottom; }
th:first-child, td:first-child { text-align: left; }
td:first-child { white-space: normal; overflow-wrap: anywhere; min-width: 7rem; }
table.facts th { background: none; font-weight: 400; color: #4a4e52; padding-left: 0;
  text-align: left; vertical-align: top; }
table.facts td { text-align: left; white-space: normal; overflow-wrap: anywhere; }
tr.total td { font-weight: 600; }
figure { margin: .6rem 0 1.4rem; }
img { max-width: 100%; height: auto; display: block; border: 1px solid #e3e5e8; }
figcaption { color: #4a4e52; font-size: .92rem; max-width: 46rem; margin-top: .4rem; }
@media (max-width: 40rem) { body { padding: .5rem .8rem 2rem; }
  th, td { padding: .25rem .45rem; } }
@media print { body { max-width: none; padding: 0; font-size: 10pt; }
  h2, h3 { break-after: avoid; } figure, tr { break-inside: avoid; }
  th, td { padding: .15rem .35rem; font-size: 8.5pt; } td:first-child { min-width: 0; }
  .scroll { overflow: visible; } img { max-height: 22cm; width: auto; } }
"""


def page(title: str, parts: Iterable[str]) -> str:
    """A whole page with a heading, of parts that are HTML already."""
    title = html.escape(title)
    text = "\n".join(
        [
            "<!DOCTYPE html>",
            '<html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f'<meta name="generator" content="{GENERATOR}">',
            f"<title>{title}</title><style>{STYLE}</style></head><body>",
            f"<h1>{title}</h1>",
            *parts,
            "</body></html>\n",
        ]
    )
    # A file's name may hold bytes that are no UTF-8, and the page is written as that.
    return text.encode("utf-8", "replace").decode("utf-8")


def section(title: str, parts: Iterable[str]) -> str:
    """A section with a heading."""
    return "\n".join([f"<section><h2>{html.escape(title)}</h2>", *parts, "</section>"])


def paragraph(text: str, kind: str = "") -> str:
    """A paragraph of text, escaped; `kind` is '', 'note' or 'warning'."""
    mark = f' class="{kind}"' if kind else ""
    return f"<p{mark}>{html.escape(text, quote=False)}</p>"


def figure(png: bytes, *, title: str, caption: str, alternative: str) -> str:
    """A picture within the page, its texts escaped; the title may be empty."""
    data = base64.b64encode(png).decode("ascii")
    heading = f"<h3>{html.escape(title)}</h3>" if title else ""
    return (
        f'{heading}<figure><img src="data:image/png;base64,{data}" '
        f'alt="{html.escape(alternative)}">'
        f"<figcaption>{html.escape(caption)}</figcaption></figure>"
    )


def facts(pairs: Iterable[tuple[Any, Any]]) -> str:
    """A table of names and what they are, escaped."""
    rows = "".join(
        f'<tr><th scope="row">{html.escape(str(name))}</th>'
        f"<td>{html.escape(str(value))}</td></tr>"
        for name, value in pairs
    )
    return f'<table class="facts">{rows}</table>'


def table(
    columns: Sequence[str], rows: Sequence[Sequence[str]], totals: Sequence[int] = ()
) -> str:
    """A table of texts, escaped; the rows numbered in `totals` stand out."""
    head = "".join(f'<th scope="col">{html.escape(name)}</th>' for name in columns)
    body = []
    for number, row in enumerate(rows):
        cells = "".join(f"<td>{html.escape(cell)}</td>" for cell in row)
        body.append(
            f'<tr class="total">{cells}</tr>'
            if number in totals
            else f"<tr>{cells}</tr>"
        )
    return (
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(body)}</tbody></table></div>"
    )
