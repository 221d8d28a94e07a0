"""The risk curve as SVG, written by hand: no plotting library, no fonts, no script.

left axis: µUSD as dollars, logarithmic      bottom axis: move of the market
red: liquidated      dark: bad debt      left of zero prices fall, right of it they rise
"""

from html import escape

from keeper.margin.report import Point, Report
from keeper.units import PPM

WIDTH, HEIGHT, LEFT, BOTTOM, TOP, RIGHT = 760, 420, 90, 50, 40, 20


def dollars(amount: int) -> str:
    """Return µUSD as short dollars: 1.2 M$."""
    value, sign = abs(amount) / PPM, "-" if amount < 0 else ""
    for unit, size in (("T", 10**12), ("B", 10**9), ("M", 10**6), ("k", 10**3)):
        if value >= size:
            return f"{sign}{value / size:.1f} {unit}$"
    return f"{sign}{value:.0f} $"


def percent(ppm: int) -> str:
    """Return ppm as percent."""
    return f"{ppm / 10_000:g} %"


def svg(report: Report) -> str:
    """Return the plot of a report."""
    top = max([p.liquidated for p in (*report.points, *report.rising)] + [10 * PPM])
    decades = len(str(top // PPM))
    widest = max(p.fall_ppm for p in report.points)

    def x(move: int) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * (move + widest) / (2 * widest)

    def y(amount: int) -> float:
        level = 0.0 if amount < PPM else len(str(amount // PPM)) - 1 + _fraction(amount // PPM)
        return HEIGHT - BOTTOM - (HEIGHT - BOTTOM - TOP) * min(level / decades, 1.0)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>',
        f'<text x="{LEFT}" y="22" font-size="15">Liquidation at risk: {report.count} accounts, '
        f"{escape(dollars(report.gross))} notional</text>",
    ]
    for decade in range(decades + 1):
        level = y(10**decade * PPM)
        parts.append(
            f'<line x1="{LEFT}" y1="{level:.1f}" x2="{WIDTH - RIGHT}" y2="{level:.1f}" '
            'stroke="#ddd"/>'
            f'<text x="{LEFT - 8}" y="{level + 4:.1f}" text-anchor="end">'
            f"{escape(dollars(10**decade * PPM))}</text>"
        )
    parts += [
        f'<text x="{x(move):.1f}" y="{HEIGHT - 25}" text-anchor="middle">{percent(move)}</text>'
        for move in (-widest, -widest // 2, 0, widest // 2, widest)
    ]
    for colour, name in (("#c0392b", "liquidated"), ("#2c3e50", "bad_debt")):
        path = [(x(-p.fall_ppm), y(_value(p, name))) for p in reversed(report.points)]
        path += [(x(p.fall_ppm), y(_value(p, name))) for p in report.rising]
        line = " ".join(f"{a:.1f},{b:.1f}" for a, b in path)
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>')
    parts.append(
        f'<text x="{LEFT}" y="{HEIGHT - 6}" fill="#c0392b">liquidated</text>'
        f'<text x="{LEFT + 80}" y="{HEIGHT - 6}" fill="#2c3e50">bad debt</text>'
        f'<text x="{WIDTH - RIGHT}" y="{HEIGHT - 6}" text-anchor="end">move of all but stables; '
        f"cascade multiplier {report.multiplier_ppm / PPM:.2f}</text></svg>"
    )
    return "\n".join(parts) + "\n"


def _value(point: Point, name: str) -> int:
    return point.liquidated if name == "liquidated" else point.bad_debt


def _fraction(whole: int) -> float:
    """Return the linear part of a logarithmic position inside its decade."""
    base = float(10 ** (len(str(whole)) - 1))
    return (whole / base - 1) / 9
