"""The report: one file, no network, nothing of the data taken for HTML."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import polars as pl
import pytest
from browser import opened
from commands import Run

import gramian as gm
from gramian.evaluate.report import report_html, write_report

OPEN = {"meta", "link", "img", "br", "li", "td", "th", "p", "tr"}  # need no end in HTML


class Tags(HTMLParser):
    """Every tag is closed in its turn."""

    def __init__(self) -> None:
        super().__init__()
        self.stack: list[str] = []
        self.sources: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.sources += [value for name, value in attrs if name in ("src", "href")]
        if tag not in OPEN:
            self.stack.append(tag)

    def handle_endtag(self, tag):
        if tag not in OPEN:
            assert self.stack.pop() == tag


@pytest.fixture(scope="module")
def compared(parts):
    titles = pl.DataFrame(
        {"item": parts[0].item_ids.ids, "title": [f"<script>{i}</script>" for i in parts[0].item_ids.ids]}
    )
    train = parts[0].with_items(titles)
    recipes = {"als": gm.ALS(factors=3, epochs=3), "baseline": gm.Baseline(), "bpmf": gm.BPMF(factors=2, draws=10)}
    return gm.compare({**recipes, "popularity": gm.Popularity()}, train, parts[1], keep_models=True), train, parts[1]


@pytest.fixture(scope="module")
def written(compared, tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "report.html"
    write_report(path, *compared, title="A & B")
    return path


def test_it_is_whole_and_needs_no_network(written):
    page = written.read_text(encoding="utf-8")
    tags = Tags()
    tags.feed(page)
    assert tags.stack == []
    assert all(source.startswith(("data:", "#")) for source in tags.sources)
    assert len(tags.sources) >= 7
    assert not re.search(r"<script|@import|url\(", page)
    assert "&lt;script&gt;" in page
    assert "<h1>A &amp; B</h1>" in page
    for label in ("als", "baseline", "bpmf", "popularity", "How sure is bpmf?", "feature 0", "map of the items"):
        assert label.lower() in page.lower()


@pytest.mark.parametrize("width", [1280, 390])
def test_it_opens_in_a_browser_at_a_desk_and_on_a_phone(written, width):
    with opened(written.as_uri(), width, offline=True) as (page, heard):
        assert heard.said == []
        assert [address for address in heard.asked if not address.startswith("data:")] == [written.as_uri()]
        sizes = page.eval_on_selector_all("img", "all => all.map(one => [one.naturalWidth, one.clientWidth])")
        assert len(sizes) >= 8
        assert min(min(pair) for pair in sizes) > 100
        # only what scrolls by itself may be wider than the page
        assert page.evaluate("document.documentElement.scrollWidth") == width
        assert page.inner_text("h1") == "A & B"
        for link in page.query_selector_all("nav a"):
            assert page.query_selector(link.get_attribute("href")).is_visible()
        if width == 1280:
            table = page.query_selector(".models .wide")
            assert table.evaluate("one => one.scrollWidth <= one.clientWidth")  # no column is out of sight
            assert page.pdf(format="A4").startswith(b"%PDF")


def test_rows_from_a_log_are_fitted_again_where_they_are_shown(parts, tmp_path):
    log = str(tmp_path / "log.jsonl")
    recipes = {"als": gm.ALS(factors=1, epochs=2), "baseline": gm.Baseline()}
    gm.compare(recipes, *parts, log=log)
    resumed = gm.compare(recipes, *parts, log=log, resume=True)
    assert resumed.models == {}
    write_report(tmp_path / "r.html", resumed, *parts)
    assert "What was learned" in (tmp_path / "r.html").read_text()


def test_nothing_fitted_is_nothing_to_report(parts):
    made = gm.compare([gm.ALS(factors=512, n_jobs=1, patience=3)], *parts)  # patience without validation
    assert "patience" in made.records[0]["reason"]
    with pytest.raises(gm.DataError, match="no best model"):
        report_html(made, *parts)


def test_report_on_the_command_line(run: Run, tmp_path, parts) -> None:
    parts[0].to_frame().write_csv(tmp_path / "r.csv")
    assert run("report", "r.csv", "--models", "baseline,svd", "-o", "out.html")[0] == 0
    assert "Which model for r.csv?" in (tmp_path / "out.html").read_text()
    code, _, err = run("report", "r.csv", "-o", "no/such.html")
    assert (code, err.count("\n")) == (2, 1)
