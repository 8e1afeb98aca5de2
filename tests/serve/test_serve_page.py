"""The page in real Chromium: search, rate, read, by mouse, by keyboard alone, on a phone, in the dark."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from serving import Server, need, served

import gramian as gm
from gramian.serve.store import Store

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip
DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
NASTY = '<img src=x onerror="document.title=1"> & "Film" (1999)'


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    need(CHROMIUM, "Chromium (apt-get install chromium)")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield started
        started.close()


@pytest.fixture(scope="module")
def films(browser, tmp_path_factory) -> Iterator[Server]:
    """A server of the bundled films, with test ratings."""
    folder = tmp_path_factory.mktemp("films")
    train, test = gm.load_dataset("movielens-small").split(0.2, seed=0)
    gm.BPMF(factors=4, draws=20, burn_in=10).fit(train, test).save(folder / "films.gramian")
    test.take(test.user_codes < 60).to_frame().write_csv(folder / "test.csv")
    with served(str(folder / "films.gramian"), "--test", str(folder / "test.csv"), "--rate", "0") as server:
        yield server


def until(page: Any, expression: str) -> None:
    """Wait for JavaScript to be true (Playwright's own waiting would need what the page's policy forbids)."""
    for _ in range(300):
        if page.evaluate(expression):
            return
        page.wait_for_timeout(100)
    raise AssertionError(f"never true: {expression}")


class Page:
    """A page that must stay without errors and without requests to anywhere else."""

    def __init__(self, browser: Any, url: str, **context: Any) -> None:
        self.context = browser.new_context(**{"viewport": DESKTOP, **context})
        self.page = self.context.new_page()
        self.page.set_default_timeout(30_000)
        self.wrong: list[str] = []
        self.page.on("console", lambda message: self.wrong.append(f"{message.type}: {message.text}"))
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.page.on("request", lambda one: None if one.url.startswith(url) else self.wrong.append(one.url))
        self.url = url

    def open(self, path: str = "/") -> Any:
        self.page.goto(self.url + path)
        self.page.wait_for_selector("html[data-started]")
        return self.page

    def find(self, words: str) -> Any:
        """Search, and give the first line that is found."""
        self.page.fill("#query", words)
        line = self.page.locator("#found li", has_text=words).first
        line.wait_for()
        return line

    def rate(self, words: str, value: int) -> None:
        """Rate the first title with these words, and wait for the list to follow."""
        self.find(words).locator("label").nth(value - 1).click()
        self.followed()

    def followed(self) -> None:
        """Wait for the list to be what was asked for last."""
        until(self.page, "document.getElementById('list').getAttribute('aria-busy') === 'false'")
        assert self.page.inner_text("#status").startswith("The list follows")

    def listed(self) -> list[str]:
        return self.page.locator("#list .head .title").all_inner_texts()

    def close(self) -> None:
        folder = os.environ.get("GRAMIAN_SCREENSHOTS")
        if folder:
            name = os.environ["PYTEST_CURRENT_TEST"].split("::")[1].split(" ")[0]
            self.page.screenshot(path=Path(folder) / f"{name}.png", full_page=True)
        self.context.close()
        assert self.wrong == []


@pytest.fixture
def opened(browser, films) -> Iterator[Callable[..., Page]]:
    pages: list[Page] = []

    def make(url: str = films.url, **context: Any) -> Page:
        pages.append(Page(browser, url, **context))
        return pages[-1]

    yield make
    for page in pages:
        page.close()


def test_three_ratings_move_the_list(opened) -> None:
    page = opened()
    page.open()
    lists = [page.listed()]
    assert page.page.inner_text("#list-head") == "Loved by most"
    for words, value in (("Matrix", 5), ("Alien", 5), ("Titanic", 1)):
        page.rate(words, value)
        lists.append(page.listed())
    assert all(len(names) == 10 for names in lists)
    assert len({tuple(names) for names in lists}) == 4
    assert page.page.inner_text("#rated-count") == "3"
    assert page.page.inner_text("#list-head") == "For you"
    first = page.page.locator("#list li").first
    low, high = (float(end) for end in first.locator(".ends").inner_text().split("–"))
    assert 0.5 <= low < float(first.locator(".value b").inner_text()) <= high <= 5
    first.locator(".why-button").click()
    reasons = first.locator(".reasons li")
    reasons.first.wait_for()
    assert reasons.count() == 3
    assert any("Matrix" in text for text in reasons.all_inner_texts())
    first.locator(".similar-button").click()
    first.locator(".more .rows li").first.wait_for()
    assert first.locator(".more .rows li").count() == 5
    page.page.reload()  # what was rated stays in this browser
    page.page.wait_for_selector("html[data-started]")
    assert page.listed() == lists[-1]
    page.page.click("#clear")
    until(page.page, "document.getElementById('list-head').textContent === 'Loved by most'")
    until(page.page, f"document.querySelector('#list .head .title').innerText === {lists[0][0]!r}")
    assert page.listed() == lists[0]


def test_the_order_can_be_chosen(opened) -> None:
    page = opened()
    page.open()
    page.rate("Matrix", 5)
    best = page.listed()
    page.page.locator("#orders label", has_text="Safe").click()
    page.followed()
    assert page.listed() != best
    assert "surely good" in page.page.inner_text("#list-hint")


def test_asking_what_tells_most(opened) -> None:
    page = opened()
    page.open()
    with page.page.expect_response("**/v1/ask"):
        page.page.click("#ask")
    until(page.page, "document.getElementById('found-head').textContent === 'These would tell most'")
    assert page.page.locator("#found li").count() == 6


def test_the_keyboard_alone(opened) -> None:
    page = opened()
    board = page.open().keyboard
    for _ in range(20):
        board.press("Tab")
        if page.page.evaluate("document.activeElement.id") == "query":
            break
    board.type("Matrix")
    page.page.locator("#found li", has_text="Matrix").first.wait_for()
    board.press("ArrowDown")
    until(page.page, "document.activeElement.type === 'radio'")
    board.press("4")
    assert page.page.evaluate("document.activeElement.value") == "4"
    page.followed()
    board.press("ArrowRight")
    page.followed()
    assert page.page.inner_text("#list-head") == "For you"
    assert page.page.evaluate("JSON.parse(localStorage.ratings)[0].rating") == 5
    for _ in range(60):
        board.press("Tab")
        if page.page.evaluate("document.activeElement.classList.contains('why-button')"):
            break
    ring = page.page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert ring == "solid"
    board.press("Enter")
    page.page.locator(".reasons li").first.wait_for()


def test_a_phone(opened) -> None:
    page = opened(viewport=PHONE, has_touch=True, is_mobile=True)
    page.open()
    with page.page.expect_response("**/v1/recommend"):
        page.find("Matrix").locator("label").nth(4).tap()
    for view in ("for-you", "features", "map", "model"):
        page.page.tap(f"nav a[href='#{view}']")
        page.page.locator(f"#view-{view} h1").wait_for()
        page.page.wait_for_load_state("networkidle")
        assert page.page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"], view
    label = page.page.evaluate("(document.querySelector('.stars label') ?? {}).offsetHeight")
    assert label is not None


def test_light_and_dark(opened) -> None:
    def shade(page: Page) -> int:
        return page.page.evaluate("Number(getComputedStyle(document.body).backgroundColor.match(/\\d+/)[0])")

    light, dark = opened(color_scheme="light"), opened(color_scheme="dark")
    light.open()
    dark.open()
    assert shade(light) > 200 > 50 > shade(dark)
    light.page.click("#theme")
    assert shade(light) < 50
    light.page.reload()
    light.page.wait_for_selector("html[data-started]")
    assert shade(light) < 50


def test_features_map_and_model(opened) -> None:
    page = opened()
    page.open("/#features").locator(".feature").first.wait_for()
    assert page.page.locator(".feature").count() == 4
    assert page.page.locator(".feature li").count() == 4 * 14
    page.page.click("nav a[href='#map']")
    page.page.locator("svg.map circle").first.wait_for()
    assert page.page.locator("svg.map circle").count() == 300
    page.page.locator("svg.map").focus()
    seen = []
    for key in ("ArrowRight", "ArrowRight", "ArrowUp"):
        page.page.keyboard.press(key)
        seen.append(page.page.evaluate("document.querySelector('.label text').textContent"))
    assert len(set(seen)) == 3
    page.page.locator(".near h2", has_text=seen[-1]).wait_for()
    page.page.click("nav a[href='#model']")
    page.page.locator("svg[aria-label^='Calibration']").wait_for()
    said = page.page.locator("svg[aria-label^='Error after each epoch']").get_attribute("aria-label")
    assert "training ends at" in said
    assert "validation ends at" in said
    assert page.page.title() == "Model · Gramian"


def test_a_key_and_kept_feedback(browser, films, opened, tmp_path, ratings) -> None:
    """With a database the page asks for a key, keeps ratings under a user's id, and shows titles as text only."""
    model, items, db = tmp_path / "m.gramian", tmp_path / "items.csv", str(tmp_path / "feedback.db")
    gm.ALS(factors=3, epochs=3).fit(ratings).save(model)
    names = ['"' + NASTY.replace('"', '""') + '"', *(f"Film {k}" for k in range(1, 40))]
    items.write_text("item,title\n" + "".join(f"{11 + 7 * k},{name}\n" for k, name in enumerate(names)))
    store = Store(db)
    secret = store.create_key("page", "write")
    with served(str(model), "--db", db, "--items", str(items), secret=secret) as server:
        page = opened(server.url)
        page.page.goto(server.url)
        page.page.locator("#key-dialog[open]").wait_for()
        page.page.fill("#key", secret)
        page.page.keyboard.press("Enter")
        page.page.wait_for_selector("html[data-started]")
        page.page.fill("#user", "4711")
        page.page.locator("#user").press("Tab")
        until(page.page, "document.getElementById('list-head').textContent === 'For user 4711'")
        line = page.find("Film")
        with page.page.expect_response("**/v1/ratings"):
            line.locator("label").nth(1).click()
        until(page.page, "document.getElementById('rated-count').textContent === '1'")
        assert len(store.of_user("4711")) == 1
        assert next(iter(store.audit("4711")))["key"] == "page"
        page.page.fill("#query", "onerror")
        page.page.locator("#found li", has_text="<img src=x").wait_for()
        assert page.page.title() == "Gramian"
        refused = [one for one in page.wrong if "401" in one]
        assert refused == page.wrong[: len(refused)]  # before the key, the browser itself notes the refusals
        del page.wrong[: len(refused)]
        other = opened(server.url)
        other.open(f"/#key={secret}")
        assert secret not in other.page.url
    store.close()
