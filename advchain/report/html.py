"""report.html: one file that needs nothing else. Numbers come from the same Table objects as the CSV files; no prompt or answer is shown."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from importlib import resources
from string import Template

from advchain.manifests import code_hash
from advchain.report.contrasts import Contrast, better, heading
from advchain.report.grid import groups
from advchain.report.markup import Table, fragment
from advchain.report.plots import ENDINGS
from advchain.report.provenance import Manifest, protocol
from advchain.report.tables import STRING_MATCHES
from advchain.report_specs import ReportSpec, TableName

CAPTIONS = {
    "tradeoff": "Lower left is better. Bars are 95 % intervals.",
    "forest": "What was declared before the run. Right of the line is better for the first method; filled marks are established after correction (Holm).",
    "forest_chains": "Right of the line is better for the first method. Where two scorers stand on different sides, the difference is the scorer's.",
    "recovery": "Chains with a bad step that come back to a good one (hijacked ones: after the forced steps). 95 % intervals.",
    "drift": "All chains, none selected; of hijacked ones only the model's own steps. Bands are 95 % intervals over prompts.",
    "conditions": "First step scorer. The paper shows chains that begin good and end bad; dashed: what that selection makes of the same steps in random order.",
    "ratio": "Training sets of one size and learning rate that differ in their share. Means over the sets of a kind, bands are 95 % intervals.",
    "size": "Training sets of one T-C share and learning rate that differ in size. Means over the sets of a kind, bands are 95 % intervals.",
    "rate": "One method, several learning rates. Means over the sets of a kind, bands are 95 % intervals.",
    "snowball": "Training data, all chains, none selected; below, aligned at the injected step. Bands are 95 % bootstrap intervals over chains.",
    "training": "Mean loss of each optimizer step over supervised tokens.",
}
HEADLINES = ("tradeoff", "forest")  # seen first
MAIN_TABLES: tuple[TableName, ...] = ("safety", "hijack", "attacks", "over_refusal", "reasoning")


def page(
    spec: ReportSpec, tables: Mapping[str, Table], figures: Mapping[str, str], contrasts: Sequence[Contrast], manifests: Sequence[Manifest], created: str
) -> str:
    """Return the whole page. `figures` are inline SVGs by name."""
    sections = {
        "Findings": findings(spec, contrasts) + '<div class="plots">' + "".join(_figure(name, figures[name]) for name in HEADLINES) + "</div>",
        "Tables": "".join(_table(tables[name]) for name in MAIN_TABLES if tables[name].rows or name != "attacks"),
        "Comparisons": "".join(_table(tables[name]) for name in ("contrasts", "drift", "paper", "ratio"))
        + _folded(tables["drift_contrasts"])
        + _folded(tables["claims"]),
        "Figures": '<div class="plots">' + "".join(_figure(name, svg) for name, svg in figures.items() if name not in HEADLINES) + "</div>",
        "Checks": "".join(_folded(tables[name]) for name in ("health", "variance", "scorers", "judges", "agreement", "corrected", "curves")),
        "Protocol": _protocol(spec, manifests) + _table(tables["costs"]),
        "Deviations": _deviations(spec),
        "Provenance": _cards(spec) + _folded(tables["provenance"]),
    }
    anchors = {title: title.lower() for title in sections}
    parts = [f'<section id="{anchors[title]}">\n<h2>{title}</h2>\n{body}\n</section>' for title, body in sections.items()]
    return _template("page.html").substitute(
        title=html.escape(f"{spec.name}: AdvChain report"),
        name=html.escape(spec.name),
        css=_text("page.css"),
        js=_text("page.js"),
        lead=html.escape(lead(spec, manifests)),
        nav=" ".join(f'<a href="#{anchor}">{title}</a>' for title, anchor in anchors.items()) + ' <a href="explorer/index.html">Single chains</a>',
        sections="\n".join(parts),
        footer=html.escape(f"Made {created} by code {code_hash()}. This page shows no prompt and no answer; the files it links to do."),
    )


def _text(name: str) -> str:
    return resources.files("advchain.report").joinpath(name).read_text(encoding="utf-8")


def _template(name: str) -> Template:
    return Template(_text(name))


def lead(spec: ReportSpec, manifests: Sequence[Manifest]) -> str:
    """Return what was run, in one sentence."""
    rows = groups(spec.checkpoints)
    seconds = sum(manifest.seconds for manifest in manifests)
    time = f" The jobs took {_duration(seconds)}." if seconds else ""
    models = ", ".join(dict.fromkeys(row.first.model_title for row in rows))
    return f"{_count(len(spec.checkpoints), 'checkpoint')} of {models}, measured on {_count(len(spec.evaluations), 'set')} of prompts.{time}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def warnings(spec: ReportSpec) -> list[str]:
    """Return what a reader must know before reading a number."""
    judges = {judge for info in spec.evaluations.values() for judge, kind in info.judges.items() if kind == "harm" and _primary_harm(info.judges) == judge}
    matched = sorted(spec.judge_titles.get(judge, judge).split(":")[0] for judge in judges if spec.judge_modules.get(judge, judge) in STRING_MATCHES)
    return [f"ASR here comes from {', '.join(matched)}: an answer without a refusal phrase counts as unsafe. It is not a harm judgement."] if matched else []


def _primary_harm(judges: Mapping[str, str]) -> str:
    return next((judge for judge, kind in judges.items() if kind == "harm"), "")


def findings(spec: ReportSpec, contrasts: Sequence[Contrast]) -> str:
    """Return the paired differences in words, by pair of methods; of what is not established only whole tables are named."""
    said = "".join(f'<p class="warning">{html.escape(text)}</p>\n' for text in warnings(spec))
    pairs: dict[tuple[str, str, str, str], list[Contrast]] = {}
    for contrast in contrasts:
        pairs.setdefault((contrast.model, contrast.method, contrast.run, contrast.reference), []).append(contrast)
    if not pairs:
        return said + '<p class="empty">No two methods that are to be compared were run on one model. The tables hold every number.</p>'
    return said + '<ul class="findings">\n' + "\n".join(_finding(spec, found) for found in pairs.values()) + "\n</ul>"


def _finding(spec: ReportSpec, found: Sequence[Contrast]) -> str:
    names = {(row.model, row.method, row.run): row for row in groups(spec.checkpoints)}
    first = found[0]
    mine, other = names[first.model, first.method, first.run], names[first.model, first.reference, first.reference_run]
    known = [f"<li>{html.escape(heading(row, spec.evaluations))}: {_verdict(row)}</li>" for row in found if row.established]
    open_ones = [heading(row, spec.evaluations) for row in found if not row.established and row.family == "table"]
    parts = f"<ul>{''.join(known)}</ul>" if known else ""
    parts += f'<p class="soft">Not established: {html.escape(", ".join(open_ones))}.</p>' if open_ones else ""
    title = f"{mine.method_title} against {other.method_title}, {mine.first.model_title}"
    return f"<li><h3>{html.escape(title)}</h3>{parts}</li>"


def _verdict(contrast: Contrast) -> str:
    word, _, rest = contrast.sentence.partition(" ")
    return f'<span class="{"good" if better(contrast) else "bad"}">{html.escape(word)}</span> {html.escape(rest)}'


def _figure(name: str, svg: str) -> str:
    """The figure with its caption; a sentence where there was nothing to plot."""
    if not svg.startswith("<svg"):
        return svg + "\n"
    caption = html.escape(CAPTIONS[name])
    shown = svg.replace("<svg", f'<svg role="img" aria-label="{name.replace("_", " ")}: {caption}"', 1)
    return f'<figure id="figure-{name}">{shown}<figcaption>{caption} {_files("figures", name, ENDINGS)}</figcaption></figure>\n'


def _table(table: Table) -> str:
    """The table as its own file has it, with links to its other forms."""
    return fragment(table).replace("</figure>", f"<p>{_files('tables', table.name, ('csv', 'tex'))}</p></figure>" if table.rows else "</figure>")


def _files(folder: str, name: str, endings: Sequence[str]) -> str:
    links = " ".join(f'<a href="{folder}/{name}.{ending}">{ending.upper()}</a>' for ending in endings)
    return f'<small class="files">{links}</small>'


def _folded(table: Table) -> str:
    return f"<details><summary>{html.escape(table.title)}</summary>\n{_table(table)}</details>\n"


def _protocol(spec: ReportSpec, manifests: Sequence[Manifest]) -> str:
    parts = [
        f"<h3>{heading}</h3><ul>{''.join(f'<li>{html.escape(line)}</li>' for line in lines)}</ul>" for heading, lines in protocol(manifests, spec.judge_titles)
    ]
    return f'<div class="protocol">{"".join(parts)}</div>\n' if parts else '<p class="empty">No manifests were given.</p>'


def _cards(spec: ReportSpec) -> str:
    """Links to the card of every training set and of every checkpoint that was trained here."""
    trained = [info for info in spec.checkpoints if info.recipe]
    sets = dict.fromkeys(info.recipe for info in trained)
    links = [("Training sets", [(f"{recipe}", f"datasets/{recipe}.card.md") for recipe in sets])]
    links += [("Checkpoints", [(f"{c.model}/{c.method}/{c.run}", f"checkpoints/{c.model}/{c.method}/{c.run}/README.md") for c in trained])]
    shown = [f"<li>{title}: {', '.join(_link(*link) for link in found)}</li>" for title, found in links if found]
    return f'<h3>Cards</h3><ul id="cards">{"".join(shown)}</ul>\n' if shown else ""


def _link(text: str, address: str) -> str:
    return f'<a href="{html.escape(address)}">{html.escape(text)}</a>'


def _deviations(spec: ReportSpec) -> str:
    if not spec.deviations:
        return '<p class="empty">None were declared.</p>'
    return f'<ul class="deviations">{"".join(f"<li>{html.escape(text)}</li>" for text in spec.deviations)}</ul>'
