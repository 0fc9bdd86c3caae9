"""W/report.html: one file that shows a run. No scripts, no fonts, nothing from elsewhere."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from aco_jax import svg

FILE = "report.html"
_STAGES = (  # in the order of the loop; others follow
    *("data", "base", "rewriter", "ranker", "reward", "critic"),
    *("transitions", "exploration", "actor", "shared", "estimate"),
)
_METHOD = "ACO"
_PRECISION_RECALL = ("precision", "recall")


@dataclass(frozen=True)
class Example:
    """A stated relation for a person to judge: the texts of both records, and what tells of it."""

    left: str
    right: str
    relation: str
    probability: float
    reason: str


@dataclass(frozen=True)
class Tables:
    """What is shown beside the curves; parts left out are not shown.

    Attributes:
      scores: rows with method, of, precision, recall, f1, label_free_f1 and the ends of its interval (None where not
        known).
      confusion: true relation -> stated relation -> pairs.
      reliability: (mean stated probability, share true, pairs) of each bin.
      examples: some stated relations.
    """

    scores: Sequence[Mapping[str, Any]] = ()
    confusion: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    reliability: Sequence[tuple[float, float, int]] = ()
    examples: Sequence[Example] = ()


def write(workdir: Path, metrics: Sequence[Mapping[str, Any]], summary: Mapping[str, Any], tables: Tables) -> Path:
    """Writes the report and returns its path.

    Args:
      metrics: rows of metrics.jsonl: "step", and "stage/name" to a number or None.
      summary: of summary.json, "fingerprint", "versions", "seconds", "tokens", "counts", "label_free", "notes",
        "columns" and "reward_model" are shown where they are there.
      tables: the rest.
    """
    title = f"ACO on {Path(summary.get('data', workdir)).name}"
    body = [
        _head(title, summary),
        _headline(tables.scores, summary),
        _scores(tables.scores),
        _pair_of(_confusion(tables.confusion), _reliability(tables.reliability)),
        _notes(summary.get("notes", ())),
        _columns(summary.get("columns", ())),
        _examples(tables.examples),
        _pair_of(_spent(summary, "seconds", "s"), _spent(summary, "tokens", "tokens")),
        _probes(summary.get("reward_model", {})),
        _margins(summary.get("reward_model", {})),
        *_curves(metrics),
        _facts(summary),
    ]
    path = Path(workdir) / FILE
    path.write_text(_page(title, body), encoding="utf-8")
    return path


def write_study(path: Path, title: str, words: str, pictures: Mapping[str, str]) -> None:
    """Writes a page of pictures, by their titles, with a sentence above them."""
    head = f"<header><h1>{escape(title)}</h1><p>{escape(words)}</p></header>"
    body = [_section(name, picture) for name, picture in pictures.items()]
    path.write_text(_page(title, [head, _pair_of(*body)]), encoding="utf-8")


def _page(title: str, body: Sequence[str]) -> str:
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body><main>{''.join(body)}</main></body></html>\n"
    )


def _head(title: str, summary: Mapping[str, Any]) -> str:
    counts = summary.get("counts", {})
    shown = ", ".join(f"{svg.number(counts[name])} {name}" for name in counts)
    return f"<header><h1>{escape(title)}</h1><p>{escape(shown)}</p></header>"


def _headline(scores: Sequence[Mapping[str, Any]], summary: Mapping[str, Any]) -> str:
    """Large figures: gold where it is known, the label-free estimate always."""
    first = next((row for row in scores if row["method"] == _METHOD), None)
    cards = []
    if first is not None:
        cards = [(f"{100 * first[name]:.1f}", name) for name in _PRECISION_RECALL]
        cards.insert(0, (f"{100 * first['f1']:.1f}", f"F1 ({first['of']})"))
        others = [row for row in scores if row["of"] == first["of"] and row["method"] != _METHOD]
        if others:
            ahead = 100 * (first["f1"] - max(row["f1"] for row in others))
            cards.append((f"{ahead:+.1f}", "F1 ahead of the better baseline"))
    expected = summary.get("label_free", {}).get("catalogue", {})
    if "f1" in expected:
        ends = f", {_ends(expected['f1_low'], expected['f1_high'])}" if "f1_low" in expected else ""
        cards.append((f"{100 * expected['f1']:.1f}", f"F1 as estimated without labels{ends}"))
    inner = "".join(f"<div class='card'><b>{escape(v)}</b><span>{escape(k)}</span></div>" for v, k in cards)
    return f"<div class='cards'>{inner}</div>" if cards else ""


def _scores(scores: Sequence[Mapping[str, Any]]) -> str:
    rows, before = [], None
    for row in scores:
        cells = f"<td>{escape(row['of'] if row['of'] != before else '')}</td><td>{escape(row['method'])}</td>"
        cells += "".join(f"<td class='n'>{100 * row[name]:.1f}</td>" for name in _PRECISION_RECALL)
        cells += f"<td class='meter' style='--share:{100 * row['f1']:.1f}%'>{100 * row['f1']:.1f}</td>"
        estimate, low, high = (row.get(f"label_free_{name}") for name in ("f1", "f1_low", "f1_high"))
        ends = "" if low is None or high is None else f" <i>{_ends(low, high)}</i>"
        cells += f"<td class='n'>{'' if estimate is None else f'{100 * estimate:.1f}{ends}'}</td>"
        kind = "ours" if row["method"] == _METHOD else "theirs"
        rows.append(f"<tr class='{kind}{'' if row['of'] == before else ' first'}'>{cells}</tr>")
        before = row["of"]
    head = "<tr><th>of<th>method<th>precision<th>recall<th>F1<th>F1 estimated without labels</tr>"
    return _section("Beside the baselines", f"<table class='scores'>{head}{''.join(rows)}</table>") if rows else ""


def _ends(low: float, high: float) -> str:
    """A 90% interval, in percent."""
    return f"{100 * low:.1f} to {100 * high:.1f}"


def _notes(notes: Sequence[str]) -> str:
    found = "".join(f"<li>{escape(note)}</li>" for note in notes)
    return _section("Worth knowing", f"<ul>{found}</ul>") if found else ""


def _columns(columns: Sequence[Mapping[str, Any]]) -> str:
    """Which columns of the tables are one attribute, and what it is read as."""
    tables = list(dict.fromkeys(table for each in columns for table in each["columns"]))
    head = "".join(f"<th>{escape(table)}" for table in tables)
    rows = []
    for each in columns:
        names = "".join(f"<td>{escape(each['columns'].get(table, ''))}</td>" for table in tables)
        kind = f"{each['kind']}{', names records' if each['names records'] else ''}"
        rows.append(f"<tr>{names}<td>{escape(kind)}</td></tr>")
    words = "<p>Columns in one line are compared with each other; all texts are compared as a whole, too.</p>"
    table = f"<table><tr>{head}<th>read as</tr>{''.join(rows)}</table>"
    return _section("What was compared with what", words + table) if rows else ""


def _confusion(confusion: Mapping[str, Mapping[str, int]]) -> str:
    if not confusion:
        return ""
    columns = list(next(iter(confusion.values())))
    head = "<tr><th>true \\ stated" + "".join(f"<th>{escape(name)}" for name in columns) + "</tr>"
    rows = []
    for name, counts in confusion.items():
        total = sum(counts.values()) or 1
        cells = "".join(_heat(n, n / total, column == name) for column, n in counts.items())
        rows.append(f"<tr><th>{escape(name)}</th>{cells}</tr>")
    return _section("Which relation for which", f"<table class='confusion'>{head}{''.join(rows)}</table>")


def _heat(count: int, share: float, right: bool) -> str:
    return f"<td class='heat{' right' if right else ''}' style='--share:{75 * share:.0f}%'>{count}</td>"


def _reliability(bins: Sequence[tuple[float, float, int]]) -> str:
    words = "<p>Stated probability (across) against how often it was true (up). On the line is honest.</p>"
    return _section("Do the probabilities mean it", f"{words}{svg.reliability(bins)}") if bins else ""


def _probes(found: Mapping[str, Any]) -> str:
    """What the reward model's score goes by though it should not."""
    if not found:
        return ""
    head = "<tr><th>changed<th>score, standard deviations<th>moved by<th>responses</tr>"
    rows = "".join(
        f"<tr class='{'won' if each['hacked'] else ''}'><td>{escape(name)}</td>"
        f"<td class='n'>{each['change']:+.2f} ± {each['interval']:.2f}</td>"
        f"<td class='n'>{each['moved']:.2f}</td><td class='n'>{each['responses']}</td></tr>"
        for name, each in found["probes"].items()
    )
    said = [each["says"] for each in (*found["probes"].values(), found["length"])]
    words = "".join(f"<li>{escape(sentence)}</li>" for sentence in said)
    return _section(
        "What the reward model goes by that it should not",
        "<p>Responses before and after a change that says nothing new.</p>"
        f"{_pair_of(f'<table>{head}{rows}</table>', f'<ul>{words}</ul>')}",
    )


def _margins(found: Mapping[str, Any]) -> str:
    """Whether the reward model is as right as its margins say, for every kind of member and combination."""
    figures = "".join(
        f"<figure><figcaption><b>{escape(name.replace('_', ' '))}</b><span>right {100 * each['right']:.0f}%, "
        f"says {100 * each['confidence']:.0f}%; ECE {each['ece']:.3f}, Brier {each['brier']:.3f}</span></figcaption>"
        f"{svg.reliability(each['bins'])}</figure>"
        for name, each in found.get("calibration", {}).items()
    )
    words = (
        f"<p>How sure it is of {found.get('preferences', 0)} preferences that are known, because they were planted, "
        "(across) against how often it was right (up).</p>"
    )
    title = "Do the reward model's margins mean it"
    return _section(title, f"{words}<div class='curves'>{figures}</div>") if figures else ""


def _examples(examples: Sequence[Example]) -> str:
    cards = "".join(
        f"<article><div class='tag'>{escape(e.relation)} <i>{100 * e.probability:.0f}%</i></div>"
        f"<p>{escape(e.left)}</p><p>{escape(e.right)}</p>{_reason(e.reason)}</article>"
        for e in examples
    )
    return _section("Some of what was found", f"<div class='examples'>{cards}</div>") if cards else ""


def _reason(reason: str) -> str:
    return f"<p class='why'>both say: {escape(reason)}</p>" if reason else ""


def _spent(summary: Mapping[str, Any], name: str, unit: str) -> str:
    values = {stage: float(value) for stage, value in summary.get(name, {}).items()}
    return _section(f"Where the {name} went", svg.bars(values, unit)) if values else ""


def _curves(metrics: Sequence[Mapping[str, Any]]) -> list[str]:
    """A section for each stage, a picture for each of its metrics."""
    names = dict.fromkeys(name for row in metrics for name in row if name != "step")
    stages: dict[str, list[str]] = {}
    for name in names:
        stages.setdefault(name.partition("/")[0], []).append(name)
    order = sorted(stages, key=lambda stage: (_STAGES.index(stage) if stage in _STAGES else len(_STAGES), stage))
    sections = []
    for stage in order:
        figures = "".join(_figure(name, metrics) for name in sorted(stages[stage]))
        if figures:
            sections.append(_section(stage.replace("_", " "), f"<div class='curves'>{figures}</div>"))
    return sections


def _figure(name: str, metrics: Sequence[Mapping[str, Any]]) -> str:
    rows = [row for row in metrics if name in row]
    values = [row[name] for row in rows]
    known = np.array([value for value in values if value is not None])
    if not known.size:
        return ""
    quarter = max(len(known) // 4, 1)
    ends = [svg.number(float(part.mean())) for part in (known[:quarter], known[-quarter:])]
    label = re.sub("[/_]", " ", name.partition("/")[2] or name)
    change = f"<span title='means of the first and of the last quarter'>{' → '.join(ends)}</span>"
    picture = svg.curve([row["step"] for row in rows], values, name)
    return f"<figure><figcaption><b>{escape(label)}</b>{change}</figcaption>{picture}</figure>"


def _facts(summary: Mapping[str, Any]) -> str:
    facts = {"data fingerprint": summary.get("fingerprint", ""), **summary.get("versions", {})}
    items = "".join(f"<dt>{escape(str(k))}</dt><dd>{escape(str(v))}</dd>" for k, v in facts.items() if v)
    return f"<footer><dl>{items}</dl></footer>" if items else ""


def _section(title: str, content: str) -> str:
    return f"<section><h2>{escape(title)}</h2>{content}</section>"


def _pair_of(*sections: str) -> str:
    shown: Iterable[str] = [section for section in sections if section]
    return f"<div class='pair'>{''.join(shown)}</div>" if shown else ""


_STYLE = """
:root { color-scheme: light dark; --ink: #1d2530; --soft: #67727f; --line: #e3e7ec;
  --paper: #fbfbf9; --card: #fff;
  --main: #0b6e6e; --tint: #0b6e6e33; --warm: #c2571a; --warm-tint: #c2571a33; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6eaee; --soft: #96a1ad; --line: #2b343d;
  --paper: #12171c; --card: #1a2128;
  --main: #45c4b8; --tint: #45c4b833; --warm: #f0955c; --warm-tint: #f0955c33; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 15px/1.5 system-ui, sans-serif; }
main { max-width: 1080px; margin: 0 auto; padding: 40px 24px 64px; }
h1 { font-size: 30px; letter-spacing: -0.02em; margin: 0; }
h2 { font-size: 17px; margin: 0 0 12px; text-transform: none; }
header p, section > p { color: var(--soft); margin: 4px 0 12px; max-width: 60ch; }
section { margin-top: 36px; min-width: 0; }
.cards { display: flex; flex-wrap: wrap; gap: 14px; margin-top: 24px; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 12px; padding: 14px 20px; }
.card:first-child { border-color: var(--main); box-shadow: inset 0 0 0 1px var(--main); }
.card b { display: block; font-size: 32px; line-height: 1.15; letter-spacing: -0.02em; }
.card:first-child b { color: var(--main); }
.card span, figcaption span, .why { color: var(--soft); font-size: 13px; }
table { border-collapse: collapse; background: var(--card); font-variant-numeric: tabular-nums; }
.scores { width: 100%; border: 1px solid var(--line); border-radius: 12px; }
th { text-align: left; font-size: 13px; font-weight: 500; color: var(--soft); padding: 8px 12px; }
td { padding: 6px 12px; }
.n { text-align: right; }
.n i { font-style: normal; color: var(--soft); font-size: 12px; font-weight: 400; }
.scores th:nth-child(n + 3) { text-align: right; }
.first td { border-top: 1px solid var(--line); }
.ours td { font-weight: 600; }
.meter { text-align: right; min-width: 180px;
  background: linear-gradient(to right, var(--warm-tint) var(--share), transparent 0) no-repeat 0 50%;
  background-size: 100% 70%; }
.ours .meter { background-image: linear-gradient(to right, var(--tint) var(--share), transparent 0); }
.won td { color: var(--warm); font-weight: 600; }
.heat { text-align: right; background: color-mix(in srgb, var(--warm) var(--share), var(--card)); }
.heat.right { background: color-mix(in srgb, var(--main) var(--share), var(--card)); }
.confusion { border: 1px solid var(--line); }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(400px, 100%), 1fr)); gap: 0 36px; }
.pair svg { max-width: 480px; }
.examples, .curves { display: grid; grid-template-columns: repeat(auto-fill, minmax(300px, 1fr)); gap: 14px; }
article, figure { background: var(--card); border: 1px solid var(--line); border-radius: 12px; padding: 14px;
  margin: 0; overflow-wrap: anywhere; }
article p { margin: 8px 0 0; }
article p + p { border-top: 1px dashed var(--line); padding-top: 8px; }
.tag { font-weight: 600; color: var(--main); }
.tag i { font-style: normal; float: right; }
figcaption { display: flex; justify-content: space-between; gap: 8px; margin-bottom: 6px; font-size: 14px; }
svg { width: 100%; height: auto; display: block; }
svg text { fill: var(--soft); font-size: 10px; }
svg .name { fill: var(--ink); font-size: 13px; }
svg .bar + .tick { font-size: 12px; }
.grid { stroke: var(--line); }
.raw { fill: none; stroke: var(--main); stroke-opacity: 0.3; }
.mean { fill: none; stroke: var(--main); stroke-width: 2; stroke-linejoin: round; }
.bar { fill: var(--main); }
.dot { fill: var(--main); fill-opacity: 0.8; }
.gap { stroke: var(--warm); stroke-width: 1.5; }
.line { fill: none; stroke: var(--of); stroke-width: 2; stroke-linejoin: round; }
.band { fill: var(--of); fill-opacity: 0.12; stroke: none; }
.mark { fill: var(--of); }
.c0 { --of: var(--main); } .c1 { --of: var(--warm); } .c2 { --of: #7a5bd0; }
.c3 { --of: #c2a11a; } .c4 { --of: #4a90d9; } .c5 { --of: var(--soft); }
.ideal { fill: none; stroke: var(--soft); stroke-dasharray: 3 4; }
footer { margin-top: 48px; border-top: 1px solid var(--line); padding-top: 12px; color: var(--soft);
  font-size: 13px; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 2px 16px; margin: 0;
  overflow-wrap: anywhere; }
dd { margin: 0; }
"""
