"""One self-contained HTML page of files of results: figures, tables, settings, and the commands that make them again.

It has no script, loads nothing, and says so in its Content-Security-Policy: only its own style sheet, by hash, and
pictures inside the page. Every value of a file is escaped.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from html import escape
from typing import Final

from frieda.bench.charts import Chart, CurveChart
from frieda.bench.contests import (
    DURABILITY_MEANING,
    OTHER_KINDS,
    Contest,
    contests,
    series_of,
)
from frieda.bench.model_figures import model_table, models_of
from frieda.bench.published import WHAT, absent, charts_of, further_charts
from frieda.bench.results import Results, Run
from frieda.bench.systems.base import DURABILITIES
from frieda.bench.tables import Table, change_table, markdown, measured_table, share_table

Draw = Callable[[Chart, str], bytes]

STYLE: Final = """
:root { color-scheme: light dark; --ink: #212529; --quiet: #5c636a; --paper: #ffffff; --line: #dee2e6;
  --shade: #f6f8fa; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #dee2e6; --quiet: #9aa4ae; --paper: #16191d; --line: #343a40; --shade: #1f2429; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 76rem; padding: 2rem 1.2rem 5rem; background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, sans-serif; }
h1 { font-size: 1.9rem; margin: 0 0 .3rem; }
h2 { font-size: 1.4rem; margin: 3rem 0 .4rem; border-bottom: 2px solid var(--line); padding-bottom: .3rem; }
h3 { font-size: 1.1rem; margin: 2.2rem 0 .2rem; }
p.quiet, figcaption, .notes { color: var(--quiet); font-size: .9rem; }
figure { margin: 1.2rem 0; }
figure img { display: block; width: 100%; max-width: 62rem; background: #ffffff; border: 1px solid var(--line);
  border-radius: .5rem; }
.curves { display: grid; grid-template-columns: repeat(auto-fill, minmax(26rem, 1fr)); gap: 0 1.2rem; }
.wide { overflow-x: auto; margin: 1rem 0; }
table { border-collapse: collapse; font-size: .82rem; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .5rem; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap; }
th { background: var(--shade); font-weight: 600; white-space: normal; vertical-align: bottom; }
td small { display: block; color: var(--quiet); font-size: .76rem; }
.name { text-align: left; }
tbody tr:hover { background: var(--shade); }
pre { background: var(--shade); border: 1px solid var(--line); border-radius: .4rem; padding: .7rem .9rem;
  overflow-x: auto; font-size: .85rem; white-space: pre-wrap; overflow-wrap: anywhere; }
details { margin: .5rem 0; }
summary { cursor: pointer; }
nav a { margin-right: 1rem; }
a { color: inherit; }
@media print { details { display: block; } .curves { display: block; } }
""".strip()


def html_page(files: Sequence[Results], draw: Draw | None) -> str:
    """The page. `draw` makes the SVG of a chart (`frieda.bench.drawing.drawn`); None leaves the figures out."""
    style_hash = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{style_hash}'; img-src data:"
    body = "\n".join(_body(files, draw))
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{escape(policy)}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>Frieda beside its peers</title>\n<style>{STYLE}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
    )


def markdown_tables(files: Sequence[Results]) -> str:
    """The same tables for a document."""
    parts = []
    for durability, grouped in _by_durability(files):
        parts.append(f"## {_durability_title(durability)}")
        for contest in grouped:
            parts += [f"### {_title(contest)}", f"{contest.described()}."]
            parts += [markdown(table) for table in _tables(contest)]
    parts += [
        "## The commands",
        *(f"```console\n$ {_one_line(each.command)}\n```" for each in files),
    ]
    return "\n\n".join(parts) + "\n"


def _body(files: Sequence[Results], draw: Draw | None) -> Iterator[str]:
    yield "<h1>Frieda beside its peers</h1>"
    yield (
        '<p class="quiet">Each number is the median over rounds in which the systems took turns, with the least and '
        "the greatest round beside it. Two classes of durability are never compared with each other. Latency counts "
        "from the intended send time wherever there was a rate. 1 MB is 1024 × 1024 bytes.</p>"
    )
    groups = _by_durability(files)
    links = [(f"durability-{_slug(name)}", _durability_title(name)) for name, _ in groups]
    links += [("commands", "Commands and machines"), ("settings", "Settings")]
    yield (
        "<nav>"
        + "".join(f'<a href="#{where}">{escape(name)}</a>' for where, name in links)
        + "</nav>"
    )
    for durability, grouped in groups:
        yield f'<h2 id="durability-{_slug(durability)}">{escape(_durability_title(durability))}</h2>'
        for contest in grouped:
            yield from _contest(contest, draw)
    yield from _model_and_roofline(files, draw)
    missing = absent(files)
    if missing:
        yield "<h2>What is not here</h2>"
        yield _list(missing)
    yield '<h2 id="commands">Commands and machines</h2>'
    for number, results in enumerate(files, start=1):
        yield f"<h3>File {number}: {escape(results.kind)}</h3>"
        yield f"<pre>$ {escape(_one_line(results.command))}</pre>"
        yield _facts(results.environment)
        yield _details("What the command was told", _facts(results.settings))
        if results.extra:
            yield _details("What it noted", _json(results.extra))
    yield '<h2 id="settings">Settings</h2>'
    yield '<p class="quiet">Of the first round of each case, as the systems and libraries name them.</p>'
    for results in files:
        for case, runs in _cases_to_show(results):
            yield _details(f"{case} — {series_of(runs[0])}", _case(runs[0]))


def _model_and_roofline(files: Sequence[Results], draw: Draw | None) -> Iterator[str]:
    tables = _model_tables(files)
    charts = [] if draw is None else further_charts(files)
    if tables or charts:
        yield '<h2 id="models">Latency model and roofline</h2>'
    yield from map(_table, tables)
    for chart in charts:
        if draw is not None:
            yield _figure(chart, draw)


def _model_tables(files: Sequence[Results]) -> list[Table]:
    return [model_table(models_of(results)) for results in files if results.kind == "model"]


def _cases_to_show(results: Results) -> list[tuple[str, list[Run]]]:
    """All, but of a sweep the first of each series: its cells differ in size and window alone."""
    cases = list(results.cases().items())
    if results.kind not in OTHER_KINDS:
        return cases
    first = {series_of(runs[0]): (case, runs) for case, runs in reversed(cases)}
    return list(first.values())


def _contest(contest: Contest, draw: Draw | None) -> Iterator[str]:
    yield f"<h3>{escape(_title(contest))}</h3>"
    yield f'<p class="quiet">{escape(contest.described())}.</p>'
    charts = [] if draw is None else charts_of(contest)
    overviews = [chart for chart in charts if not isinstance(chart, CurveChart)]
    curves = [chart for chart in charts if isinstance(chart, CurveChart)]
    if draw is not None:
        yield from (_figure(chart, draw) for chart in overviews)
    yield from map(_table, _tables(contest))
    if curves and draw is not None:
        yield '<div class="curves">'
        yield from (_figure(chart, draw) for chart in curves)
        yield "</div>"


def _by_durability(files: Sequence[Results]) -> list[tuple[str, list[Contest]]]:
    """The contests of each class: cache, disk, then what did not state it."""
    grouped: dict[str, list[Contest]] = {}
    for contest in contests(files):
        grouped.setdefault(contest.durability, []).append(contest)
    order = [*DURABILITIES, *(name for name in grouped if name not in DURABILITIES)]
    return [(name, grouped[name]) for name in order if name in grouped]


def _durability_title(durability: str) -> str:
    meaning = DURABILITY_MEANING.get(durability)
    return f"Durability: {durability}" + (f", {meaning}" if meaning else "")


def _title(contest: Contest) -> str:
    what = WHAT.get(contest.mode, contest.mode)
    return f"{what[0].upper()}{what[1:]}: {contest.brokers}"


def _tables(contest: Contest) -> list[Table]:
    further = (share_table(contest), change_table(contest))
    return [measured_table(contest), *(table for table in further if table is not None)]


def _figure(chart: Chart, draw: Draw) -> str:
    picture = base64.b64encode(draw(chart, "svg")).decode()
    told = f"{chart.title}. {chart.subtitle}"
    return f'<figure><img alt="{escape(told)}" src="data:image/svg+xml;base64,{picture}"></figure>'


def _table(table: Table) -> str:
    def row(tag: str, cells: Sequence[str]) -> str:
        return "".join(
            f'<{tag} class="name">{escape(cell)}</{tag}>'
            if number < table.names
            else f"<{tag}>{_spread_below(cell)}</{tag}>"
            for number, cell in enumerate(cells)
        )

    body = "\n".join(f"<tr>{row('td', cells)}</tr>" for cells in table.rows)
    notes = f'<div class="notes">{_list(table.notes)}</div>' if table.notes else ""
    return (
        f'<div class="wide"><table><thead><tr>{row("th", table.headings)}</tr></thead>\n'
        f"<tbody>\n{body}\n</tbody></table></div>{notes}"
    )


def _spread_below(cell: str) -> str:
    """The least and the greatest in a line of their own, which keeps the table narrow."""
    median, has_spread, spread = cell.partition(" (")
    return (
        f"{escape(median)}<small>{escape(spread.removesuffix(')'))}</small>"
        if has_spread
        else escape(cell)
    )


def _case(run: Run) -> str:
    return (
        f"<p>Load</p>{_facts({n: v for n, v in run.settings.items() if v is not None})}"
        f"<p>Server</p>{_facts(run.server_settings)}"
        f"<p>Client</p>{_facts(run.client_settings)}"
    )


def _facts(facts: Mapping[str, object]) -> str:
    rows = "\n".join(
        f'<tr><td class="name">{escape(str(name))}</td><td class="name">{escape(_value(value))}</td></tr>'
        for name, value in facts.items()
    )
    return (
        f'<div class="wide"><table><tbody>\n{rows}\n</tbody></table></div>'
        if rows
        else "<p>none</p>"
    )


def _value(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)


def _json(value: Mapping[str, object]) -> str:
    return f"<pre>{escape(json.dumps(value, indent=1, default=str, ensure_ascii=False))}</pre>"


def _details(title: str, content: str) -> str:
    return f"<details><summary>{escape(title)}</summary>{content}</details>"


def _list(sentences: Sequence[str]) -> str:
    return f"<ul>{''.join(f'<li>{escape(each)}</li>' for each in sentences)}</ul>"


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _slug(name: str) -> str:
    return "".join(character if character.isalnum() else "-" for character in name)
