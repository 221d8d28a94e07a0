"""A backtest's report: rows for a table, JSON for a program, one HTML page for a person.

The page holds its plots as inline SVG and loads nothing, so it can be mailed, archived, and read
without a network.
"""

from collections.abc import Sequence
from dataclasses import asdict
from html import escape
from itertools import cycle
from typing import Any

from policies.backtest import Score, Settings

MICRO = 1_000_000
WIDTH, HEIGHT, LEFT, FOOT = 720, 220, 84, 24
COLOURS = ("#2563eb", "#ea580c", "#16a34a", "#9333ea")
PLOTS = (
    ("profit", "Net profit, USD"),
    ("bad_debt", "Bad debt, USD"),
    ("regret", "Regret, USD"),
    ("equity", "Equity of all accounts, USD"),
)
ROWS: tuple[tuple[str, str, bool], ...] = (
    ("executed", "closes executed", False),
    ("tasks", "tasks opened", False),
    ("lost", "lost to the rival", False),
    ("void", "void: healed before execution", False),
    ("no_shows", "no-shows", False),
    ("volume", "volume closed", True),
    ("gross", "profit before price", True),
    ("paid", "prices paid", True),
    ("net", "net profit", True),
    ("predicted", "net profit predicted", True),
    ("bad_debt", "bad debt left", True),
    ("regret", "regret", True),
)


def money(micro: int) -> str:
    """Return µUSD as dollars."""
    sign = "-" if micro < 0 else ""
    return f"{sign}{abs(micro) // MICRO:,}.{abs(micro) % MICRO // 10_000:02d}"


def rows(scores: Sequence[Score]) -> list[tuple[str, ...]]:
    """Return (label, value per policy) lines."""
    lines = []
    for name, label, is_money in ROWS:
        values = [getattr(score, name) for score in scores]
        lines.append((label, *(money(x) if is_money else f"{x:,}" for x in values)))
    return lines


def as_json(scores: Sequence[Score], settings: Settings | None, record: str) -> dict[str, Any]:
    """Return the report as plain data; a node's record has no settings of a world."""
    return {
        "record": record,
        "settings": None if settings is None else asdict(settings),
        "policies": [score.table() for score in scores],
    }


def _points(values: Sequence[int], low: int, high: int) -> str:
    span, count = max(1, high - low), max(1, len(values) - 1)
    return " ".join(
        f"{LEFT + index * (WIDTH - LEFT) // count},"
        f"{HEIGHT - FOOT - (value - low) * (HEIGHT - FOOT - 10) // span}"
        for index, value in enumerate(values)
    )


def plot(title: str, curves: Sequence[tuple[str, Sequence[int]]]) -> str:
    """Return one SVG figure of curves in µUSD over the record."""
    every = [value for _, values in curves for value in values] or [0]
    low, high = min(every), max(every)
    parts = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">',
        f'<line x1="{LEFT}" y1="{HEIGHT - FOOT}" x2="{WIDTH}" y2="{HEIGHT - FOOT}"/>',
        f'<line x1="{LEFT}" y1="0" x2="{LEFT}" y2="{HEIGHT - FOOT}"/>',
        f'<text x="{LEFT - 6}" y="14" text-anchor="end">{money(high)}</text>',
        f'<text x="{LEFT - 6}" y="{HEIGHT - FOOT}" text-anchor="end">{money(low)}</text>',
        f'<text x="{LEFT}" y="{HEIGHT - 6}">start</text>',
        f'<text x="{WIDTH}" y="{HEIGHT - 6}" text-anchor="end">end of the record</text>',
    ]
    for number, (colour, (_, values)) in enumerate(zip(cycle(COLOURS), curves, strict=False)):
        # longer gaps further down the list, so that equal curves show through one another
        dashes = f' stroke-dasharray="6 {4 * number}"' if number else ""
        parts.append(f'<polyline stroke="{colour}"{dashes} points="{_points(values, low, high)}"/>')
    parts.append("</svg>")
    return f"<figure><figcaption>{escape(title)}</figcaption>{''.join(parts)}</figure>"


_STYLE = """body{font:15px system-ui,sans-serif;margin:2rem auto;max-width:760px;padding:0 1rem;
color:#111;background:#fff}table{border-collapse:collapse;width:100%}td,th{padding:.3rem .6rem;
text-align:right;border-bottom:1px solid #ddd;font-variant-numeric:tabular-nums}
td:first-child,th:first-child{text-align:left}svg{width:100%;height:auto}polyline{fill:none;
stroke-width:1.6}line{stroke:#999}text{font-size:11px;fill:#555}figure{margin:1.5rem 0}
.key{display:inline-block;width:.8em;height:.8em;margin:0 .3em 0 1em}
@media(prefers-color-scheme:dark){body{background:#111;color:#eee}td,th{border-color:#333}
text{fill:#aaa}}"""


def _how(score: Score, settings: Settings | None) -> str:
    if settings is None:
        return f"{score.ticks:,} views of a node, against the bids it heard"
    return (
        f"{score.ticks:,} ticks, execution after {settings.delay} ticks, rival bids"
        f" {settings.rival_ppm / 10_000:g} % of a close's profit"
    )


def page(scores: Sequence[Score], settings: Settings | None, record: str) -> str:
    """Return the whole report as one HTML page."""
    names = [score.policy for score in scores]
    head = "".join(
        f'<th><span class="key" style="background:{colour}"></span>{escape(name)}</th>'
        for colour, name in zip(cycle(COLOURS), names, strict=False)
    )
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in line) + "</tr>"
        for line in rows(scores)
    )
    plots = "".join(
        plot(title, [(score.policy, score.curves[name]) for score in scores])
        for name, title in PLOTS
    )
    hashes = ", ".join(f"{escape(score.policy)} {score.decisions_hash}" for score in scores)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f"<title>Backtest of {escape(record)}</title><style>{_STYLE}</style></head><body>"
        f"<h1>Backtest</h1><p>{escape(record)}: {_how(scores[0], settings)}. Money in USD.</p>"
        f"<table><tr><th></th>{head}</tr>{body}</table>{plots}"
        f"<p>Decisions, hashed: {hashes}</p></body></html>\n"
    )
