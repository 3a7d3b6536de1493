"""The promises of the report that only a real browser can keep: opened from a disk, without a network, under its own Content-Security-Policy."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from urllib.parse import quote

import pytest
from fabricated_run import fabricate

from evalrunner.analysis.compare import compare
from evalrunner.analysis.flips import flipped_samples
from evalrunner.analysis.pairing import Side
from evalrunner.report.page import Judged, SampleRows, render

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
ARGUMENTS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
]
AXE = Path(os.environ.get("AXE_CORE", Path(__file__).parents[2] / ".ci/node_modules/axe-core/axe.min.js"))
EVIL = "</script><!--<script><img src=x onerror=alert(1)><svg onload=alert(2)><a href=javascript:alert(3) id=facts>\"'>]]>{{ 7*7 }}${alert(4)}"
FIELDS = [
    *(
        "name",
        "description",
        "run_id",
        "model",
        "model_id",
        "prompt",
        "prompt_set",
        "provider",
        "tags",
        "sample_id",
        "messages",
        "output",
        "target",
        "error_code",
    ),
    *(
        "error_message",
        "response_model",
        "score_exact_why",
        "reasoning",
        "tool_calls",
        "conversation",
        "finish_reason",
        "host",
        "origin",
        "command",
        "data",
        "template",
    ),
]

pytestmark = [pytest.mark.browser, pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")]


@pytest.fixture(scope="module")
def chromium():
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    run = fabricate(60, strings={"output": "The answer, in words: 四十二"}, seed=3)
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(render(run.summary, run.rows), "utf-8")
    return path


def against(old, new):
    """What a page needs to show `new` against `old`."""
    comparison = compare(*(Side(name, run.results, run.manifest["plan"], {}) for name, run in (("blessed", old), ("now", new))))
    return Judged(comparison, flipped_samples(comparison, old.results, new.results))


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    """A report of a run that is held against a baseline, with what that found."""
    old, new = fabricate(80, seed=7), fabricate(80, seed=11)
    path, found = tmp_path_factory.mktemp("compared") / "report.html", against(old, new)
    path.write_text(render(new.summary, new.rows, judged=found), "utf-8")
    return path, found.comparison


@pytest.fixture
def visit(chromium):
    """Opens a page with the network off; whatever it complains of, asks for or pops up fails the test at its end."""
    contexts, complaints = [], []

    def complain(kind):
        return lambda event: complaints.append(f"{kind}: {getattr(event, 'text', None) or getattr(event, 'message', None) or getattr(event, 'url', event)}")

    def opened(path, address="", **options):
        context = chromium.new_context(offline=True, **{"viewport": {"width": 1280, "height": 900}, **options})
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(15_000)
        page.on("console", complain("console"))
        page.on("pageerror", complain("error"))
        page.on("dialog", complain("dialog"))
        page.on("request", lambda request: None if request.url.startswith(path.as_uri()) else complaints.append(f"request: {request.url}"))
        page.add_init_script("addEventListener('securitypolicyviolation', (event) => console.error('CSP ' + event.violatedDirective))")
        page.goto(path.as_uri() + address)
        if options.get("java_script_enabled", True):
            page.wait_for_selector("#list .row, #list .empty")
        return page

    yield opened
    for context in contexts:
        context.close()
    assert complaints == []


def rows(page):
    return page.locator("#found").inner_text()


def test_opens_from_disk_without_a_network(visit, report):
    """A year from now, on a train: the file opens, shows its numbers and unpacks its samples."""
    page = visit(report)
    assert page.locator("h1").inner_text() == "model-selection"
    assert rows(page) == "60 of 60 samples"
    page.locator("#row-1").click()
    assert "四十二" in page.locator("#detail .result").first.inner_text()


@pytest.mark.parametrize("text", [EVIL, "javascript:alert(1)", "__proto__", "\u202e\u2028=cmd|x"], ids=["markup", "url", "prototype", "odd letters"])
def test_text_from_outside_is_shown_and_never_run(visit, tmp_path, text):
    """A model that answers with a script is quoted, letter by letter: in every field, in the tables and in the drill-down."""
    strings = dict.fromkeys(FIELDS, text)
    spoken = strings | {"messages": json.dumps([{"role": "user", "content": text}])}
    old, now, run = (fabricate(6, models=["a"], prompts=["p"], failing=0.2, strings=put, seed=seed) for put, seed in ((spoken, 3), (spoken, 8), (strings, 8)))
    path = tmp_path / "report.html"
    path.write_text(render(run.summary, run.rows, judged=against(old, now)), "utf-8")
    page = visit(path)
    assert " ".join(text.split()) in " ".join(page.locator("#flips .flip").first.inner_text().split())
    page.evaluate("for (const one of document.querySelectorAll('details')) one.open = true")
    shown = " ".join(page.locator("h1").inner_text().split())
    assert shown == " ".join(text.split())
    for at in range(6):
        page.locator(f"#row-{at}").click()
        page.wait_for_selector("#detail .result")
        assert page.evaluate("text => document.getElementById('detail').textContent.includes(text)", text)
        assert page.evaluate("text => document.getElementById('provenance').textContent.includes(text)", text)
    assert page.locator("main img, main script, main a:not([href^='#/id=']), main iframe, #detail svg:not(.swatch)").count() == 0


def test_readable_without_javascript(visit, report):
    """Verdict, leaderboard and charts need no script; what does is not there."""
    page = visit(report, java_script_enabled=False)
    text = page.locator("main").inner_text()
    assert "Best quality" in text
    assert "质量最佳" not in text
    assert page.locator("#leaderboard tbody tr").count() == 8
    assert page.locator("#leaderboard .dot").first.is_visible()
    assert not page.locator("#viewer").is_visible()
    assert "needs JavaScript" in text


def test_search_and_filters_find_samples(visit, report):
    """Every filter narrows the list, they work together, and reset brings all back."""
    page = visit(report)
    page.locator("#q").fill("s17")
    assert rows(page) == "1 of 60 samples"
    page.locator("#q").fill("四十二")
    assert rows(page) == "60 of 60 samples"
    page.locator("#q").fill("no such words")
    assert "No sample matches" in page.locator("#list").inner_text()
    page.locator("#reset").click()
    assert rows(page) == "60 of 60 samples"
    page.locator("#disagree").check()
    some = int(rows(page).split()[0])
    assert 0 < some < 60
    for label, value in (("Any outcome", "unanswered"), ("Any topic", "algebra"), ("Right or wrong", "wrong")):
        page.locator("#reset").click()
        page.get_by_label(label).select_option(value)
        wide = int(rows(page).split()[0])
        assert 0 < wide < 60
        page.get_by_label("Any configuration").select_option("0")
        assert int(rows(page).split()[0]) <= wide
    page.locator("#reset").click()
    assert rows(page) == "60 of 60 samples"


def test_a_field_of_the_matrix_opens_what_the_two_disagree_on(visit, report):
    """A click on a pair lists the samples that one has right and the other wrong, those two first; the address keeps it, the chip takes it away."""
    page = visit(report)
    button = page.locator("#pairs .duel button").nth(3)
    wins, _, losses = (int(part) for part in button.locator(".sub").inner_text().split("–"))
    button.click()
    assert rows(page) == f"{wins + losses} of 60 samples"
    assert page.locator("#detail .result:visible").count() == 2
    page.get_by_text("6 other answers").click()
    assert page.locator("#detail .result:visible").count() == 8
    assert visit(report, page.evaluate("location.hash")).locator("#found").inner_text() == rows(page)
    page.locator(".chip").click()
    assert rows(page) == "60 of 60 samples"


def test_what_flipped_can_be_filtered_and_opened(visit, compared):
    """The lost and the gained samples each are one choice in the viewer; a lost one in the page leads to all its answers."""
    path, comparison = compared
    page = visit(path)
    for choice, kind in (("lost", "lost"), ("gained", "gained")):
        page.get_by_label("Flipped or not").select_option(choice)
        ids = {sample for pair in comparison.pairs for sample in getattr(pair.flips["score_exact"], kind)}
        assert rows(page) == f"{len(ids)} of 80 samples"
    page.locator("#reset").click()
    link = page.locator("#flips .flip a").first
    name = link.inner_text()
    link.click()
    page.wait_for_function("name => document.querySelector('#detail h3')?.textContent === name", arg=name)


def test_flips_need_no_script(visit, compared):
    """Counts and the first lost answers, with what differs marked, are there without JavaScript and on paper."""
    page = visit(compared[0], java_script_enabled=False)
    assert page.locator("#flips .flip mark").first.is_visible()
    assert page.locator("#flips thead").first.inner_text().count("p") > 0
    assert page.locator("#pairs .duel b").first.is_visible()
    page.emulate_media(media="print")
    assert page.locator("#flips .flip").first.is_visible()


def test_dear_samples_can_be_found(visit, report):
    """What cost more than an amount is one filter; the amount is in the address."""
    page = visit(report)
    page.locator("#above").fill("0.0003")
    assert 0 < int(rows(page).split()[0]) < 60
    assert "above=0.0003" in page.evaluate("location.hash")
    page.locator("#above").fill("99")
    assert rows(page) == "0 of 60 samples"


def test_a_tool_conversation_reads_like_one(visit, tmp_path):
    """Calls stand as name(argument: value), results under the name of their tool, a judge's long text folded."""
    asked = {
        "role": "assistant",
        "content": "",
        "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "杭州"}'}}],
    }
    talk = json.dumps([asked, {"role": "tool", "tool_call_id": "c1", "content": "21 degrees"}], ensure_ascii=False)
    calls = json.dumps([{"id": "c2", "name": "sell", "arguments": '{"amount": 3, "now": true}'}])
    run = fabricate(2, models=["a"], prompts=["p"], failing=0, strings={"conversation": talk, "tool_calls": calls, "score_exact_why": "The judge says. " * 60})
    path = tmp_path / "report.html"
    path.write_text(render(run.summary, run.rows), "utf-8")
    detail = visit(path).locator("#detail")
    detail.locator(".result").wait_for()
    assert detail.locator(".call").all_inner_texts() == ['weather(city: "杭州")', "sell(amount: 3, now: true)"]
    assert "result of weather" in detail.inner_text()
    assert not detail.locator("details.why .text").is_visible()
    detail.locator("details.why summary").click()
    assert detail.locator("details.why .text").is_visible()


def test_every_state_has_an_address(visit, report):
    """What is searched, filtered and open is in the address: sent to a colleague, it opens the same."""
    page = visit(report)
    page.locator("#disagree").check()
    page.get_by_label("Any level").select_option("2")
    page.locator("#list .row").nth(2).click()
    page.locator("#switch-lang").click()
    title = page.locator("#detail h3").inner_text()
    address = page.evaluate("location.hash")
    again = visit(report, address)
    assert again.locator("#detail h3").inner_text() == title
    assert again.locator("#found").inner_text() == rows(page)
    assert again.evaluate("document.documentElement.lang") == "zh"
    assert again.locator("#disagree").is_checked()


def test_an_odd_address_does_no_harm(visit, report):
    """A cut or hostile link opens the page as it is."""
    page = visit(report, "#/id=none&by=constructor&lang=__proto__")
    assert rows(page) == "60 of 60 samples"
    for address, found in (("#/", 60), (f"#/q={quote(EVIL)}", 0), ("#/cell=99&tag.__proto__=x", 0), ("#nowhere", 0), ("#/%", 60)):
        page.evaluate("address => { location.hash = address }", address)
        page.get_by_text(f"{found} of 60 samples").wait_for()


def test_the_keyboard_reaches_everything(visit, report):
    """j and k move, Enter reads, Escape goes back, / searches, d shows disagreements, ? helps."""
    page = visit(report)
    page.keyboard.press("j")
    page.keyboard.press("j")
    assert page.locator("#detail h3").inner_text() == "s3"
    page.keyboard.press("k")
    assert page.locator(".row[aria-selected=true]").get_attribute("id") == "row-1"
    page.locator("#list").focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "detail"
    page.keyboard.press("Escape")
    assert page.evaluate("document.activeElement.id") == "list"
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.id") == "q"
    page.keyboard.type("jdk?")
    assert page.locator("#q").input_value() == "jdk?"
    page.locator("#reset").click()
    page.keyboard.press("d")
    assert page.locator("#disagree").is_checked()
    page.keyboard.press("?")
    assert page.locator("#help").is_visible()
    page.keyboard.press("Escape")
    assert not page.locator("#help").is_visible()


def test_tables_sort_and_say_so(visit, report):
    """A click on a heading sorts by it, another turns it round; unknown stands last either way, and aria-sort tells."""
    page = visit(report)
    header = page.locator("#leaderboard th", has_text="Cost per 1,000")
    values = "[...document.querySelectorAll('#leaderboard tbody tr')].map((row) => row.cells[arguments_].dataset.value)"
    column = header.evaluate("node => node.cellIndex")
    for order, backwards in (("descending", True), ("ascending", False)):
        header.locator("button").click()
        assert header.get_attribute("aria-sort") == order
        found = page.evaluate(values.replace("arguments_", str(column)))
        known = [float(value) for value in found if value]
        assert known == sorted(known, reverse=backwards)
        assert found[len(known) :] == [""] * (len(found) - len(known))


def test_both_languages_are_complete(visit, report):
    """After the switch no English sentence of ours is left, labels included; names and data stay as they are."""
    page = visit(report)
    page.locator("#switch-lang").click()
    assert "排行榜" in page.locator("#leaderboard h2").inner_text()
    assert page.locator("#q").get_attribute("placeholder") == "搜索编号、问题、回答开头"
    assert page.locator("nav").get_attribute("aria-label") == "目录"
    assert not set(page.locator("#viewer").inner_text().split()) & {"Any", "Expected", "latency", "Copy", "right", "wrong", "samples"}
    page.locator("#switch-lang").click()
    assert page.locator("#leaderboard h2").inner_text() == "Leaderboard"


def test_light_and_dark(visit, report):
    """The page follows the system and can be turned by hand."""
    paper = "getComputedStyle(document.body).backgroundColor"
    light, dark = visit(report, color_scheme="light"), visit(report, color_scheme="dark")
    before = light.evaluate(paper)
    assert before != dark.evaluate(paper)
    light.locator("#switch-theme").click()
    assert light.evaluate(paper) == dark.evaluate(paper)
    light.locator("#switch-theme").click()
    assert light.evaluate(paper) == before


def test_works_on_a_phone(visit, report):
    """390 pixels wide nothing is cut off sideways, and a sample opens over the list and closes again."""
    page = visit(report, viewport={"width": 390, "height": 844})
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.locator("#list .row").nth(1).click()
    assert page.locator("#detail").is_visible()
    page.locator("#detail .back").click()
    assert not page.locator("#detail").is_visible()


def test_prints_what_matters(visit, report):
    """On paper: verdict, leaderboard, charts; no buttons, no viewer."""
    page = visit(report)
    page.emulate_media(media="print")
    assert page.locator("#leaderboard table").is_visible()
    assert page.locator("#latency .curve").first.is_visible()
    assert not page.locator(".top").is_visible()
    assert not page.locator("#samples").is_visible()


def test_a_record_can_be_taken_along(visit, report):
    """As JSON that parses, and as a curl command that names no key."""
    page = visit(report, permissions=["clipboard-read", "clipboard-write"])
    page.locator("#row-2").click()
    page.get_by_text("Copy as JSON").first.click()
    page.get_by_text("Copied").wait_for()
    record = json.loads(page.evaluate("navigator.clipboard.readText()"))
    assert record["outcome"] == "ok"
    assert record["messages"][0]["role"] == "user"
    page.get_by_text("Copy as curl").first.click()
    page.get_by_text("Copied").nth(1).wait_for()
    command = page.evaluate("navigator.clipboard.readText()")
    assert command.startswith("curl 'https://example.invalid/compatible-mode/v1/chat/completions'")
    assert "Bearer $API_KEY" in command


def test_charts_tell_their_numbers(visit, report):
    """Pointing at a mark shows its value; every chart stands beside a table or opens one."""
    page = visit(report)
    page.locator("#leaderboard .plot-cell .dot").first.hover()
    assert "n = " in page.locator("#tip").inner_text()
    assert page.locator("#tradeoffs figure").count() == page.locator("#tradeoffs details table").count() > 0
    assert page.locator("#latency figure").count() == page.locator("#latency table").count() > 0


@pytest.mark.skipif(not AXE.exists(), reason="axe-core is not installed (npm install --prefix .ci axe-core)")
@pytest.mark.parametrize(("width", "theme"), [(1280, "light"), (390, "dark")])
def test_axe_finds_nothing(visit, tmp_path, width, theme):
    """WCAG 2.2 AA, as far as a machine can tell, with everything unfolded."""
    old, run = (fabricate(12, models=["qwen-max", "qwen3-8b"], failing=0.1, seed=seed) for seed in (7, 8))
    path = tmp_path / "report.html"
    path.write_text(render(run.summary, run.rows, judged=against(old, run)), "utf-8")
    page = visit(path, "#/id=s8", viewport={"width": width, "height": 900}, color_scheme=theme, bypass_csp=True)
    page.evaluate("for (const one of document.querySelectorAll('details')) one.open = true")
    page.add_script_tag(content=AXE.read_text("utf-8"))
    found = page.evaluate("axe.run({runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice']})")
    assert [f"{one['id']}: {one['nodes'][0]['html'][:120]}" for one in found["violations"]] == []


def test_ten_thousand_samples_scroll(visit, tmp_path):
    """A list of any length is at its end at once: only what is seen is drawn."""
    run = fabricate(2500, models=["a", "b"], prompts=["p"], words=8)
    path = tmp_path / "report.html"
    path.write_text(render(run.summary, SampleRows(run.results)), "utf-8")
    page = visit(path)
    page.evaluate("document.getElementById('list').scrollTop = 1e9")
    page.wait_for_selector("#row-2499")
    assert page.locator("#list .row").count() < 60
