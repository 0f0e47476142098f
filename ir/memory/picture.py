"""A plan as a picture: steps from left to right, addresses from bottom to top, one box per buffer."""

from __future__ import annotations

from html import escape

from .plan import Buffer, Plan

LEFT, RIGHT, TOP, PLOT, BOTTOM = 72, 156, 76, 340, 150
SCOPE = "memory-plan"
"""Class of the SVG element, to which all style is confined: the picture may stand inside a page."""

FONT = 'font:12px system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif;max-width:100%;height:auto'

STYLES = (
    # class, light, what differs when dark
    ("paper", "fill:#fff;stroke:#d8dee6", "fill:#141a21;stroke:#2c3641"),
    ("ink", "fill:#1c2733", "fill:#e7edf3"),
    ("faint", "fill:#5c6b7a", "fill:#97a6b5"),
    ("title", "font-size:16px;font-weight:600", ""),
    ("small", "font-size:11px", ""),
    ("grid", "stroke:#e6ebf0", "stroke:#242d37"),
    ("axis", "stroke:#9aa7b4", "stroke:#52606e"),
    ("peak", "fill:#f2b84b;fill-opacity:.2", ""),
    ("value", "fill:#3a76b8", "fill:#4180c0"),
    ("input", "fill:#23897b", ""),
    ("scratch", "fill:#b9702f", ""),
    ("box", "stroke:#fff", "stroke:#141a21"),
    ("box:hover", "fill-opacity:.8", ""),
    ("on", "fill:#fff;font-size:11px;pointer-events:none", ""),
    ("line", "stroke-width:1.5;stroke-dasharray:6 4", ""),
    ("budget", "stroke:#c9352b", "stroke:#ff7b70"),
    ("bound", "stroke:#2b8a3e", "stroke:#5fc977"),
    ("budget-ink", "fill:#c9352b", "fill:#ff7b70"),
    ("bound-ink", "fill:#2b8a3e", "fill:#5fc977"),
)


def svg(plan: Plan) -> str:
    """A self-contained SVG: every box has a tooltip; colours follow the reader's light or dark scheme."""
    canvas = _Canvas(plan)
    boxes = sorted(plan.buffers, key=lambda buffer: (buffer.kind == "scratch", buffer.first, buffer.name))
    parts = [canvas.frame(), canvas.grid(), *map(canvas.box, boxes), canvas.lines()]
    parts += [*map(canvas.label, boxes), canvas.steps()]
    return "\n".join(part for part in parts if part) + "\n</svg>\n"


def kib(count: int) -> str:
    """Bytes for people."""
    return f"{count / 1024:.1f} KiB" if count >= 1024 else f"{count} B"


def short(name: str, most: int) -> str:
    """The end of a long name, where the names of a model differ; whole parts if possible."""
    if len(name) <= most:
        return name
    tail = name[len(name) - most + 1 :]
    return "…" + (tail[tail.index("/") + 1 :] if "/" in tail[:-1] else tail)


def _style() -> str:
    rules = [f".{SCOPE}{{{FONT}}}", *(f".{SCOPE} .{name}{{{light}}}" for name, light, _ in STYLES)]
    dark = "\n".join(f".{SCOPE} .{name}{{{other}}}" for name, _, other in STYLES if other)
    return "\n".join([*rules, f"@media (prefers-color-scheme:dark){{{dark}}}"])


class _Canvas:
    """Scales of a picture and the drawing of its parts."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        count = max(1, len(plan.steps))
        self.column = max(9.0, min(96.0, 1020 / count))
        self.width = max(LEFT + self.column * count + RIGHT, 560.0)
        self.height = TOP + PLOT + BOTTOM
        shown = plan.budget if plan.budget is not None and plan.budget <= 2 * plan.arena_bytes else 0
        self.most = max(plan.arena_bytes, plan.lower_bound, shown, 1) * 1.05

    def x(self, step: float) -> float:
        return LEFT + step * self.column

    def y(self, address: float) -> float:
        return TOP + PLOT - address / self.most * PLOT

    def text(self, x: float, y: float, words: str, style: str = "ink", anchor: str = "start", more: str = "") -> str:
        place = f'x="{x:.1f}" y="{y:.1f}" class="{style}" text-anchor="{anchor}"{more}'
        return f"<text {place}>{escape(words)}</text>"

    def line(self, x1: float, y1: float, x2: float, y2: float, style: str) -> str:
        return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{style}"/>'

    def frame(self) -> str:
        plan = self.plan
        title = f"{kib(plan.arena_bytes)} of RAM in {len(plan.steps)} steps"
        gap = "offsets proven optimal for these schedules"
        if plan.gap > 0:
            gap = f"offsets within {plan.gap:.1%} of the least for these schedules"
        size = f'viewBox="0 0 {self.width:.0f} {self.height}" width="{self.width:.0f}" height="{self.height}"'
        head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" class="{SCOPE}">'
        legend, at = [], self.x(len(plan.steps))
        for kind in ("scratch", "value", "input"):
            if any(buffer.kind == kind for buffer in plan.buffers):
                legend.append(self.text(at, 28, kind, "faint small", "end"))
                at -= 18 + 6 * len(kind)
                legend.append(f'<rect x="{at:.0f}" y="18" width="11" height="11" rx="2" class="{kind}"/>')
                at -= 14
        return "\n".join([
            head, f"<title>{title}</title>", f"<style>{_style()}</style>",
            f'<rect x=".5" y=".5" width="{self.width - 1:.0f}" height="{self.height - 1}" rx="10" class="paper"/>',
            self.text(LEFT, 28, title, "ink title"), self.text(LEFT, 46, gap, "faint"), *legend,
        ])  # fmt: skip

    def grid(self) -> str:
        plan, right = self.plan, self.x(len(self.plan.steps))
        tick = 256
        while self.most / tick > 8:
            tick *= 2
        parts = []
        if plan.steps:
            x, top = self.x(plan.peak_step), float(TOP)
            size = f'width="{self.column:.1f}" height="{PLOT}"'
            words = f"peak: {plan.steps[plan.peak_step].name}, {plan.load(plan.peak_step):,} bytes"
            parts.append(f'<rect x="{x:.1f}" y="{top}" {size} class="peak"><title>{escape(words)}</title></rect>')
            parts.append(self.text(x + self.column / 2, TOP - 5, "peak", "faint small", "middle"))
        for address in range(0, int(self.most) + 1, tick):
            y = self.y(address)
            parts.append(self.line(LEFT, y, right, y, "grid" if address else "axis"))
            label = f"{address // 1024} KiB" if tick >= 1024 else f"{address} B"
            parts.append(self.text(LEFT - 8, y + 4, label if address else "0", "faint small", "end"))
        return "\n".join(parts)

    def area(self, buffer: Buffer) -> tuple[float, float, float, float]:
        """Left, top, width, height; a take-over of bytes is drawn in the middle of the step in which it happens."""
        heir = any(other.over == buffer.name for other in self.plan.buffers)
        left, right = self.x(buffer.first + (0.5 if buffer.over else 0)), self.x(buffer.last + (0.5 if heir else 1))
        return left, self.y(buffer.end), right - left, self.y(buffer.offset) - self.y(buffer.end)

    def box(self, buffer: Buffer) -> str:
        """A buffer with its tooltip."""
        x, y, width, height = self.area(buffer)
        place = f'x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{max(height, 1):.1f}" rx="2"'
        return f'<rect {place} class="box {buffer.kind}"><title>{escape(self.words(buffer))}</title></rect>'

    def label(self, buffer: Buffer) -> str:
        """Name and size on two lines, on one, upright, or the size alone: the first that the box has room for."""
        x, y, width, height = self.area(buffer)
        x, y = x + width / 2, y + height / 2
        name, size = "scratch" if buffer.kind == "scratch" else short(buffer.name, 24), kib(buffer.bytes)
        both, glyph, turn = f"{name} {size}", 6.3, f' transform="rotate(-90 {x + 4:.1f} {y:.1f})"'
        if width >= glyph * max(len(name), len(size)) + 4 and height >= 30:
            return self.text(x, y - 3, name, "on", "middle") + self.text(x, y + 11, size, "on", "middle")
        if width >= glyph * len(both) + 4 and height >= 14:
            return self.text(x, y + 4, both, "on", "middle")
        if width >= 11 and height >= glyph * len(size) + 6:
            return self.text(x + 4, y, both if height >= glyph * len(both) + 6 else size, "on", "middle", turn)
        return ""

    def words(self, buffer: Buffer) -> str:
        """The tooltip."""
        span = f"step {buffer.first + 1}"
        if buffer.last > buffer.first:
            span = f"steps {buffer.first + 1} to {buffer.last + 1}"
        lines = [f"{buffer.name}: {buffer.bytes:,} bytes at {buffer.offset:,}, {span}"]
        if buffer.over:
            lines.append(f"overwrites {buffer.over}")
        if buffer.kind == "scratch":
            step = self.plan.steps[buffer.first]
            lines[0] += f", {step.schedule.name}"
            lines += [f"{p.name}: {p.bytes:,} bytes at {step.piece(p.name):,}" for p in step.schedule.scratch]
        return "\n".join(lines)

    def steps(self) -> str:
        """Names of the steps, as many as there is room for."""
        every = max(1, -(-14 // int(self.column)))
        parts, y = [], TOP + PLOT + 14
        for number, step in enumerate(self.plan.steps):
            away = abs(number - self.plan.peak_step)
            if away and (number % every or away < every):
                continue
            x = self.x(number + 0.5) + 3
            name = short(step.name, 14)
            kind = type(step.group.nodes[0].op).__name__ if step.group.kind == "single" else step.group.kind
            turn = f' transform="rotate(-65 {x:.1f} {y})"'
            parts.append(self.text(x, y, f"{kind} · {name}", "faint small", "end", turn))
        return "\n".join(parts)

    def lines(self) -> str:
        """Budget, arena and lower bound with their labels, kept apart."""
        plan, right = self.plan, self.x(len(self.plan.steps))
        marks = [(plan.lower_bound, "bound", f"lower bound {kib(plan.lower_bound)}")]
        if plan.lower_bound < plan.arena_bytes:
            marks.append((plan.arena_bytes, "axis", f"arena {kib(plan.arena_bytes)}"))
        else:
            marks = [(plan.arena_bytes, "bound", f"arena {kib(plan.arena_bytes)} = bound")]
        if plan.budget is not None:
            marks.append((plan.budget, "budget", f"budget {kib(plan.budget)}"))
        parts, below = [], float(TOP + PLOT + 30)
        for address, style, words in sorted(marks):
            inside = address <= self.most
            y = self.y(address) if inside else float(TOP - 8)
            if inside:
                parts.append(self.line(LEFT, y, right, y, f"line {style}"))
            below = min(y + 4, below - 15)
            ink = "ink small" if style == "axis" else f"{style}-ink small"
            parts.append(self.text(right + 8, below, words if inside else words + " ↑", ink))
        return "\n".join(parts)
