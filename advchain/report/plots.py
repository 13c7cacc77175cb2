"""How every figure looks: size, palette, legend below the axes, SVG, PNG and PDF files, and the SVG that the page carries inline."""

from __future__ import annotations

import html
import io
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_pdf import FigureCanvasPdf
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from advchain.io import atomic_write
from advchain.parallel import ALONE, Workers

# Okabe-Ito with a lighter blue, without black and yellow, which vanish on a dark or white page: distinguishable with colour-blind vision
PALETTE = ("#2185C5", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C8C8C")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
INK, LINE = "#333330", "#d0d0cd"  # replaced by the page's own colours in the inline SVG
LARGE = frozenset({"conditions", "drift"})  # the most panels: begun first, so that no process is left with them at the end
PANEL = (4.2, 3.3)  # inches
HEADING = 13  # points, not bold: that would put a second font into every PDF for one line, and cutting it down to these letters takes as long as a panel
CANVAS: dict[str, Any] = {"svg": FigureCanvasSVG, "png": FigureCanvasAgg, "pdf": FigureCanvasPdf}
ENDINGS = tuple(CANVAS)
DPI = 160  # of the PNG; the others have no pixels
METADATA: dict[str, dict[str, Any]] = {  # no dates: the same figure gives the same bytes
    "svg": {"Date": None, "Creator": None},
    "png": {"Software": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
}
OPTIONS: dict[str, dict[str, Any]] = {"png": {"pil_kwargs": {"compress_level": 3}}}  # half the time of the usual 6, a few per cent more bytes
STYLE = {
    "font.size": 10,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.titlesize": 10.5,
    "axes.titley": 1.0,  # fixed: to look for a free place would measure every tick of every panel once per form
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": LINE,
    "grid.linewidth": 0.6,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "svg.fonttype": "path",
    "svg.hashsalt": "advchain",
    "pdf.fonttype": 42,  # TrueType: text stays text, as publishers ask
}
EMPTY = {"pdf.fonttype": 3}  # of a figure that only says why it is empty: its fonts need no subset, which takes longer than all else


def colour(index: int) -> str:
    """Colour of the index-th method or kind."""
    return PALETTE[index % len(PALETTE)]


def filled(index: int) -> bool:
    """Beyond the palette the same colours come again, hollow."""
    return (index // len(PALETTE)) % 2 == 0


def marker(index: int) -> str:
    """Marker of the index-th model or measure."""
    return MARKERS[index % len(MARKERS)]


def panels(titles: Sequence[str], heading: str, per_row: int = 2, height: float = PANEL[1], width: float = PANEL[0]) -> tuple[Figure, list[Any]]:
    """Return a figure with one titled axes of `width` by `height` inches per title, laid out without overlap."""
    num_columns = min(per_row, len(titles))
    num_rows = -(-len(titles) // num_columns)
    figure = Figure(figsize=(max(width * num_columns, 6.0), height * num_rows + 1.1), layout="constrained")
    figure.suptitle(heading, fontsize=HEADING)
    axes = [figure.add_subplot(num_rows, num_columns, place + 1) for place in range(len(titles))]
    for ax, title in zip(axes, titles, strict=True):
        ax.set_title(title)
    return figure, axes


def outer(axes: Sequence[Any], per_row: int) -> None:
    """Of panels with the same scales only those at the left mark and name the y axis, and only those with nothing below them the x axis."""
    per_row = min(per_row, len(axes))
    for place, ax in enumerate(axes):
        if place % per_row:
            ax.tick_params(axis="y", left=False, labelleft=False)
            _unlabelled(ax.yaxis)
        if place + per_row < len(axes):
            ax.tick_params(axis="x", bottom=False, labelbottom=False)
            _unlabelled(ax.xaxis)


def _unlabelled(axis: Any) -> None:
    """Take an axis its label, and its place: matplotlib measures all ticks to place an empty label too."""
    axis.set_label_text("")
    axis.set_label_coords(0.5, 0.5)


def legend(figure: Figure, handles: Sequence[Any]) -> None:
    """Put one legend below all panels, where it can hide nothing."""
    if handles:
        longest = max(len(handle.get_label()) for handle in handles)
        num_columns = max(1, min(len(handles), int(figure.get_figwidth() * 13 / (longest + 5))))
        figure.legend(handles=handles, loc="outside lower center", ncols=num_columns, fontsize=9)


def said(heading: str, text: str) -> Figure:
    """Return the figure that stands where there is nothing to plot: its heading and a plain sentence."""
    figure = Figure(figsize=(6.0, 1.2))
    figure.suptitle(heading, fontsize=HEADING)
    figure.text(0.5, 0.3, text, ha="center", va="center", fontsize=9)
    figure.set_label(f"{heading}: {text}")
    return figure


def save_all(makers: Mapping[str, Callable[[], Figure]], folder: Path, workers: Workers = ALONE) -> dict[str, str]:
    """Make and save every figure, as many at a time as there are workers; return by name what `save` returns."""
    order = sorted(makers, key=lambda name: name not in LARGE)
    saved = dict(zip(order, workers.run_all([partial(_make, makers[name], folder, name) for name in order]), strict=True))
    return {name: saved[name] for name in makers}


def _make(make: Callable[[], Figure], folder: Path, name: str) -> str:
    return save(make(), folder, name)


def save(figure: Figure, folder: Path, name: str) -> str:
    """Write `<name>.svg`, `.png` and `.pdf` atomically; return the SVG to put into the page, or a sentence where there was nothing to plot."""
    with matplotlib.rc_context(STYLE | (EMPTY if figure.get_label() else {})):
        engine = figure.get_layout_engine()
        if engine is not None:
            engine.execute(figure)
        figure.set_layout_engine("none")  # laid out once for all forms: that is most of the time
        made = {ending: _render(figure, ending) for ending in ENDINGS}
    for ending, content in made.items():
        with atomic_write(folder / f"{name}.{ending}", binary=True) as file:
            file.write(content)
    if figure.get_label():
        return f'<p class="empty">{html.escape(str(figure.get_label()))}</p>'
    return _inline(made["svg"].decode("utf-8"), name)


def _render(figure: Figure, ending: str) -> bytes:
    """Draw once; `savefig` would draw twice, to look for a layout that is fixed already."""
    buffer = io.BytesIO()
    figure.set_dpi(DPI)
    canvas = CANVAS[ending](figure)
    getattr(canvas, f"print_{ending}")(buffer, metadata=METADATA[ending], **OPTIONS.get(ending, {}))
    return buffer.getvalue()


def _width(match: re.Match[str]) -> str:
    """The text of all figures is of one size; on a narrow screen a wide figure scrolls rather than shrink until it cannot be read."""
    points = float(match[2])
    return f'{match[1]} style="min-width: {0.8 * points:.0f}px; max-width: {1.4 * points:.0f}px"'


def _inline(svg: str, name: str) -> str:
    """Drop prolog, metadata, namespaces (no address is left) and white grounds, prefix ids so that two figures do not mix, take the page's colours."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\s+xmlns(:\w+)?="[^"]*"', "", svg)
    svg = re.sub(r'(?<=\sid=")', f"{name}-", svg)
    svg = re.sub(r'(?<=href="#)|(?<=url\(#)', f"{name}-", svg).replace("xlink:href", "href")
    svg = re.sub(r'(<svg[^>]*?) width="([\d.]+)pt"', _width, svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    return svg.replace("fill: #ffffff", "fill: none").replace(INK, "currentColor").replace(LINE, "var(--line)")
