"""One file, nothing from elsewhere, everything in it, and pictures that show what they were given."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import pytest

from aco_jax import report, svg

NASTY = "<script>alert('x')</script> & \"quoted\""
METRICS = [{"step": 2 * t, "base/denoising_loss": 4.0 - t, "actor/kl": None if t == 1 else 0.5} for t in range(4)]
SUMMARY = {
    "data": "some/shops",
    "fingerprint": "abc123",
    "versions": {"jax": "0.10.2"},
    "seconds": {"compile": 30.0, "rounds": 90.0},
    "tokens": {"base": 12000},
    "counts": {"tables": 3},
    "label_free": {"catalogue": {"f1": 0.87}},
    "columns": [
        {"columns": {"a": "lamp name", "b": NASTY}, "kind": "text", "names records": True},
        {"columns": {"b": "list price"}, "kind": "amount", "names records": False},
    ],
}


def make_tables():
    def line(method, f1, estimate=None):
        row = {"method": method, "of": "pairs", "precision": 0.9, "recall": 0.8, "f1": f1}
        return row | {"label_free_f1": estimate}

    return report.Tables(
        scores=[line("ACO", 0.85, 0.84), line("mutual best", 0.75), line("one-to-one", 0.8)],
        confusion={"same": {"same": 7, NASTY: 3}, NASTY: {"same": 0, NASTY: 5}},
        reliability=[(0.1, 0.2, 50), (0.9, 0.9, 200)],
        examples=[
            report.Example(NASTY, "red lamp", "same", 0.97, f"lamp {NASTY}"),
            report.Example("blue lamp", "red lamp", "same", 0.9, ""),  # with nothing to say
        ],
    )


class Checker(HTMLParser):
    """Collects what a page loads and what it says; every tag that must be closed is."""

    VOID = frozenset({"meta", "th"})

    def __init__(self):
        super().__init__()
        self.open, self.tags, self.words = [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


def check(path):
    text = path.read_text(encoding="utf-8")
    checker = Checker()
    checker.feed(text)
    checker.close()
    assert checker.open == []
    return text, checker.tags, " ".join(checker.words)


def test_one_file_with_everything_in_it(tmp_path):
    text, tags, words = check(report.write(tmp_path, METRICS, SUMMARY, make_tables()))
    assert {tag for tag, _ in tags} & {"script", "link", "img", "iframe", "object"} == set()
    assert not any({"src", "href"} & set(attributes) for _, attributes in tags)
    assert "http" not in text
    assert "url(" not in text
    assert "alert('x')" in words  # shown as text
    figures = ("85.0", "+5.0", "87.0", "84.0", "97%", "12k tokens, 100%", "90 s, 75%")
    columns = ("lamp name", "list price", "text, names records", "amount")
    for shown in (*figures, *columns, f"both say: lamp {NASTY}", "denoising loss", "abc123", "0.10.2"):
        assert shown in words, shown
    assert words.count("both say") == 1
    assert "prefers-color-scheme: dark" in text


def test_every_curve_is_drawn_in_the_order_of_the_loop(tmp_path):
    text, _, _ = check(report.write(tmp_path, METRICS, {}, report.Tables()))
    assert re.findall(r"<h2>(\w+)</h2>", text) == ["base", "actor"]
    assert text.count("<figure>") == 2
    assert "4 → 1" in text  # first and last quarter of 4, 3, 2, 1


def probed(hacked: bool) -> dict:
    effect = {"change": 0.41, "interval": 0.02, "moved": 0.43, "responses": 128, "hacked": hacked}
    said = {"ece": 0.031, "brier": 0.12, "right": 0.9, "confidence": 0.84, "temperature": 0.8}
    return {
        "preferences": 1012,
        "probes": {"repeated facts": effect | {"says": "Saying it again wins."}},
        "length": {"correlation": 0.1, "hacked": False, "says": "Length wins nothing."},
        "calibration": {"worst_case": said | {"bins": [[0.6, 0.5, 9], [0.9, 1.0, 30]]}},
    }


def test_what_the_reward_model_goes_by_is_shown(tmp_path):
    text, _, words = check(report.write(tmp_path, [], {"reward_model": probed(True)}, report.Tables()))
    for shown in ("+0.41 ± 0.02", "Saying it again wins.", "Length wins nothing.", "worst case", "ECE 0.031", "1012"):
        assert shown in words, shown
    assert text.count("class='won'") == 1
    assert text.count('class="dot"') == 2
    text, _, _ = check(report.write(tmp_path, [], {"reward_model": probed(False)}, report.Tables()))
    assert "class='won'" not in text


def test_an_empty_run_is_still_a_page(tmp_path):
    _, _, words = check(report.write(tmp_path, [], {}, report.Tables()))
    assert tmp_path.name in words


def points_of(picture, kind):
    root = ElementTree.fromstring(picture)
    lines = [line.get("points").split() for line in root.iter("polyline") if line.get("class") == kind]
    return [np.array([point.split(",") for point in line], float) for line in lines]


def test_a_curve_is_to_scale():
    (line,) = points_of(svg.curve([0, 10, 40], [1.0, 3.0, 2.0], "x"), "raw")
    assert (line[1, 0] - line[0, 0]) / (line[2, 0] - line[0, 0]) == pytest.approx(1 / 4, abs=0.01)
    rise = line[0, 1] - line[:, 1]  # up is towards 0
    assert rise[1] > 0
    assert rise[2] / rise[1] == pytest.approx((2 - 1) / (3 - 1), abs=0.01)


def test_what_is_not_known_is_a_gap():
    lines = points_of(svg.curve([0, 1, 2, 3, 4], [1.0, 2.0, None, 2.0, 1.0], "x"), "raw")
    assert [len(line) for line in lines] == [2, 2]
    assert svg.curve([0, 1], [None, None], "x") == ""


@pytest.mark.parametrize("values", [[5.0], [5.0, 5.0], [0.0, 0.0], [1e-9, 2e-9], [-1e6, 1e6], [1e12, 1e12 + 1]])
def test_a_curve_of_any_size_stays_in_the_picture(values):
    picture = svg.curve(list(range(len(values))), values, "x")
    root = ElementTree.fromstring(picture)
    _, _, width, height = map(float, root.get("viewBox").split())
    for text in root.iter("text"):
        assert 0 <= float(text.get("x")) <= width
        assert 0 <= float(text.get("y")) <= height
    for line in points_of(picture, "raw"):
        assert np.all(line >= 0)
        assert np.all(line <= [width, height])


def test_the_mean_of_a_curve_is_the_mean():
    values = np.random.default_rng(0).normal(size=36)
    smooth = svg._running_mean(values, 3)
    assert smooth[10] == pytest.approx(values[7:14].mean())
    assert smooth[0] == pytest.approx(values[:4].mean())


def test_ticks_are_round_and_inside():
    assert svg._ticks(0.0, 1.0) == [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    assert svg._ticks(-3.0, 47.0) == [0.0, 20.0, 40.0]
    for low, high in np.random.default_rng(0).normal(size=(50, 2)).cumsum(axis=1):
        low, high = min(low, high), max(low, high)
        ticks = svg._ticks(low, high)
        assert 2 <= len(ticks) <= 7
        assert low - 1e-9 <= min(ticks) <= max(ticks) <= high + 1e-9


def test_lines_on_log_axes_are_to_scale_and_leave_out_what_has_no_logarithm():
    series = [
        svg.Line("first & last", [(1.0, 1.0), (10.0, 100.0), (1000.0, 10.0)], [(0.5, 2.0), (50.0, 200.0), (5.0, 20.0)]),
        svg.Line("other", [(0.0, 5.0), (10.0, -1.0), (10.0, 10.0), (100.0, 10.0)]),
    ]
    picture = svg.lines(series, "n", "count", log_x=True, log_y=True)
    (first,), (other,) = points_of(picture, "line c0"), points_of(picture, "line c1")
    assert (first[1, 0] - first[0, 0]) / (first[2, 0] - first[0, 0]) == pytest.approx(1 / 3, abs=0.01)
    assert (first[0, 1] - first[1, 1]) / (first[0, 1] - first[2, 1]) == pytest.approx(2.0, abs=0.02)
    assert len(other) == 2
    root = ElementTree.fromstring(picture)
    (band,) = root.iter("polygon")
    assert len(band.get("points").split()) == 6
    said = [text.text for text in root.iter("text")]
    assert {"first & last", "other", "n", "count", "10", "100", "1000"} <= set(said)
    assert svg.lines([svg.Line("none", [(0.0, 1.0)])], "n", "count", log_x=True) == ""


def test_lines_on_plain_axes_keep_all_values():
    (line,) = points_of(svg.lines([svg.Line("a", [(0.0, -1.0), (1.0, 0.0), (4.0, 1.0)])], "x", "y"), "line c0")
    assert (line[1, 0] - line[0, 0]) / (line[2, 0] - line[0, 0]) == pytest.approx(1 / 4, abs=0.01)
    assert line[0, 1] - line[1, 1] == pytest.approx(line[1, 1] - line[2, 1], abs=0.2)


def test_a_study_is_a_page_with_its_pictures(tmp_path):
    picture = svg.lines([svg.Line(NASTY, [(0.0, 1.0), (1.0, 2.0)])], "x", "y")
    report.write_study(tmp_path / "study.html", "A study", NASTY, {"one": picture, "two": picture})
    text, tags, words = check(tmp_path / "study.html")
    assert {tag for tag, _ in tags} & {"script", "link", "img", "iframe", "object"} == set()
    assert text.count("<svg") == 2
    assert "alert('x')" in words


def test_bars_are_to_scale():
    root = ElementTree.fromstring(svg.bars({"a": 10.0, "b": 40.0}, "s"))
    widths = [float(bar.get("width")) for bar in root.iter("rect")]
    assert widths[1] / widths[0] == pytest.approx(1 / 4, abs=0.01)
    assert svg.bars({}, "s") == ""


def test_reliability_stands_where_it_belongs():
    root = ElementTree.fromstring(svg.reliability([(0.0, 0.0, 4), (0.5, 1.0, 1), (1.0, 1.0, 4)]))
    low, middle, high = (np.array([float(c.get("cx")), float(c.get("cy"))]) for c in root.iter("circle"))
    assert middle[0] == pytest.approx((low[0] + high[0]) / 2)
    assert middle[1] == high[1] < low[1]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.12345, "0.123"),
        (12.0, "12"),
        (1234.5, "1234"),
        (12345, "12.3k"),
        (3.2e6, "3.2M"),
        (-0.5, "-0.5"),
        (0, "0"),
    ],
)
def test_numbers_are_short(value, text):
    assert svg.number(value) == text
