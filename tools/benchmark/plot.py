"""The growth curve as SVG: seconds over the number of nodes, a line for each way, and the ideal."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from .measuring import Row

WIDTH, HEIGHT = 720, 420
LEFT, RIGHT, TOP, BOTTOM = 64, 150, 48, 56  # margins; the names of the lines stand on the right
COLOURS = {"p2phub": "#1b6ca8", "libtorrent": "#c8553d", "nginx": "#588157", "ideal": "#888888"}
LABEL = 15  # height of the name of a line
TICKS = 6  # at most, on the axis of seconds

Line = list[tuple[int, float]]  # nodes, seconds


def plot(rows: Sequence[Row]) -> str:
    """Return an SVG document of the rows that are points of a curve."""
    lines = _lines(rows)
    if not lines:
        raise ValueError("no row is a point of a curve")
    counts = sorted({nodes for line in lines.values() for nodes, _ in line})
    size = max(row.amount for row in rows) / 1e6
    title = f"Time until the last of N nodes has {size:.0f} MB, every uplink capped"
    step = _step(max(seconds for line in lines.values() for _, seconds in line))
    top = step * (int(max(seconds for line in lines.values() for _, seconds in line) / step) + 1)

    def x(nodes: int) -> float:
        share = (nodes - counts[0]) / max(counts[-1] - counts[0], 1)
        return LEFT + share * (WIDTH - LEFT - RIGHT)

    def y(seconds: float) -> float:
        return HEIGHT - BOTTOM - seconds / top * (HEIGHT - TOP - BOTTOM)

    parts = [_text(LEFT, 24, title, "start", size=15)]
    for number in range(round(top / step) + 1):
        level = y(number * step)
        parts.append(f'<path d="M{LEFT} {level:.1f}H{WIDTH - RIGHT}" stroke="#dddddd"/>')
        parts.append(_text(LEFT - 8, level + 4, f"{number * step:g}", "end"))
    parts += [_text(x(nodes), HEIGHT - BOTTOM + 20, str(nodes), "middle") for nodes in counts]
    parts.append(_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 12, "nodes", "middle"))
    parts.append(_text(LEFT - 8, TOP - 8, "s", "end"))
    labels: list[tuple[float, float]] = []
    for name, line in sorted(lines.items(), key=lambda item: -item[1][-1][1]):  # from the top
        points = [(x(nodes), y(seconds)) for nodes, seconds in line]
        end_x, end_y = points[-1]
        label = end_x, max([end_y, *(other_y + LABEL for other_x, other_y in labels if other_x == end_x)])
        labels.append(label)
        parts += [*_draw(name, points), _text(end_x + 10, label[1] + 4, name, "start", colour=_colour(name))]
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif">'
    return "\n".join([head, f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>', *parts, "</svg>\n"])


def _lines(rows: Sequence[Row]) -> dict[str, Line]:
    lines: dict[str, Line] = {}
    for row in rows:
        seconds, ideal = row.median("seconds"), row.median("ideal")
        if row.curve and seconds is not None:
            name, nodes = row.curve
            lines.setdefault(name, []).append((nodes, seconds))
            if ideal is not None and (nodes, ideal) not in lines.setdefault("ideal", []):
                lines["ideal"].append((nodes, ideal))
    return {name: sorted(line) for name, line in lines.items()}


def _draw(name: str, points: list[tuple[float, float]]) -> list[str]:
    colour = _colour(name)
    dashes = ' stroke-dasharray="5 4"' if name == "ideal" else ""
    way = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
    dots = [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{colour}"/>' for x, y in points]
    path = f'<path d="M{way}" fill="none" stroke="{colour}" stroke-width="2"{dashes}/>'
    return [path, *dots]


def _colour(name: str) -> str:
    return COLOURS.get(name, "black")


def _text(x: float, y: float, text: str, anchor: str, *, size: int = 12, colour: str = "#333333") -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"'
    return f'<text {place} font-size="{size}" fill="{colour}">{escape(text)}</text>'


def _step(largest: float) -> float:
    """Return a round distance of ticks, at most TICKS of them up to `largest`."""
    step = 10.0**-3
    while True:
        for factor in (1, 2, 5):
            if largest <= step * factor * TICKS:
                return step * factor
        step *= 10
