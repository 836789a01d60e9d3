"""Small plots of what was measured last: inline SVG, from plain numbers."""

from __future__ import annotations

from collections.abc import Sequence

WIDTH, HEIGHT = 120, 30


def svg(series: Sequence[Sequence[float]], *, top: float | None = None, room: int = 60) -> str:
    """Draw lines of at most ``room`` values, the latest on the right. ``top``: the value at the upper edge.

    Without it that is the largest value there is. The second line has the class "second".
    """
    highest = top if top is not None else max((value for values in series for value in values), default=0.0)
    lines = "".join(
        _line(values[-room:], highest or 1.0, room, ' class="second"' if index else "")
        for index, values in enumerate(series)
    )
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" preserveAspectRatio="none" aria-hidden="true">{lines}</svg>'


def _line(values: Sequence[float], highest: float, room: int, mark: str) -> str:
    step = WIDTH / (room - 1)
    first = WIDTH - step * (len(values) - 1)
    points = [
        f"{first + step * index:.1f},{HEIGHT - HEIGHT * min(value / highest, 1.0):.1f}"
        for index, value in enumerate(values)
    ]
    if len(points) < 2:
        return ""
    area = [f"{first:.1f},{HEIGHT}", *points, f"{WIDTH},{HEIGHT}"]
    return f'<polygon{mark} points="{" ".join(area)}"/><polyline{mark} points="{" ".join(points)}"/>'
