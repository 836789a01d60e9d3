"""Bars with their spread, beside a line that marks the target: SVG, from plain numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

_WIDTH, _ROW, _TOP, _BOTTOM = 860, 22, 34, 12
_NAMES, _TEXTS = 190, 210
"""Room for the names on the left, and for the texts on the right."""

_FULL = 1.5
"""The share at the right edge. What is beyond ends there; the text tells by how much."""

# The picture is shown as a file of its own too, where no page lends it a colour.
_STYLE = """
text{font:12px system-ui,sans-serif;fill:#222}.head{font-weight:600}
.met{fill:#3fa66a}.missed{fill:#cf5b66}.spread{stroke:#222;stroke-opacity:.55}
.target{stroke:#222;stroke-dasharray:4 3}
@media(prefers-color-scheme:dark){text{fill:#ddd}.spread,.target{stroke:#ddd}}
"""


@dataclass(frozen=True)
class Bar:
    """One row: the share of its target that its median takes, and those of its smallest and largest value."""

    name: str
    text: str
    share: float
    one_end: float
    other_end: float


def svg(title: str, bars: Sequence[Bar]) -> str:
    """Draw ``bars`` one below the other; a share of 1 ends at the line."""
    height = _TOP + _ROW * len(bars) + _BOTTOM
    line = _x(1.0)
    return "".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" role="img"'
            f' aria-label="{escape(title)}"><style>{"".join(_STYLE.split(chr(10)))}</style>',
            f'<text class="head" x="0" y="15">{escape(title)}</text>',
            f'<text x="{line}" y="{_TOP - 6}" text-anchor="middle">target</text>',
            *(_drawn(bar, _TOP + index * _ROW) for index, bar in enumerate(bars)),
            f'<line class="target" x1="{line}" x2="{line}" y1="{_TOP}" y2="{height - _BOTTOM}"/></svg>',
        ]
    )


def _drawn(bar: Bar, y: int) -> str:
    left, right = sorted((_x(bar.one_end), _x(bar.other_end)))
    width, middle = max(_x(bar.share) - _NAMES, 1.0), y + _ROW / 2
    return (
        f"<g><title>{escape(bar.name)}: {escape(bar.text)}</title>"
        f'<text x="{_NAMES - 8}" y="{y + 15}" text-anchor="end">{escape(bar.name)}</text>'
        f'<rect class="{"met" if bar.share <= 1 else "missed"}" x="{_NAMES}" y="{y + 4}" width="{width:.1f}"'
        f' height="{_ROW - 8}" rx="2"/>'
        f'<line class="spread" x1="{left:.1f}" x2="{right:.1f}" y1="{middle}" y2="{middle}"/>'
        f'<text x="{_WIDTH - _TEXTS + 8}" y="{y + 15}">{escape(bar.text)}</text></g>'
    )


def _x(share: float) -> float:
    """Where a share is, from the left edge."""
    return round(_NAMES + min(share, _FULL) / _FULL * (_WIDTH - _NAMES - _TEXTS), 1)
