"""The promises of the report, as far as they can be seen without a browser (tests/browser has the rest)."""

from __future__ import annotations

import base64
import gzip
import html
import json
import re
import string
from html.parser import HTMLParser
from importlib import resources

import msgspec
import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.parquet as pq
import pytest
from fabricated_run import fabricate
from hypothesis import given, settings
from hypothesis import strategies as st

from evalrunner.analysis.compare import Options, compare
from evalrunner.analysis.flips import flipped_samples
from evalrunner.analysis.pairing import Side
from evalrunner.analysis.summary import summarise
from evalrunner.analysis.tables import Agreement, JudgePair, JudgeSummary
from evalrunner.report import quantities
from evalrunner.report.page import Judged, SampleRows, in_script, render
from evalrunner.report.samples import pack
from evalrunner.report.words import WORDS, both


@pytest.fixture(scope="module")
def run():
    return fabricate(60)


@pytest.fixture(scope="module")
def page(run):
    return render(run.summary, run.rows)


def unpacked(blocks):
    return [json.loads(gzip.decompress(base64.b64decode(block))) for block in blocks]


def visible(page):
    """The page's English text, without scripts and styles."""
    page = re.sub(r"<(script|style)\b.*?</\1>", " ", page, flags=re.DOTALL)
    page = re.sub(r'<span lang="zh">.*?</span>', "", page, flags=re.DOTALL)
    return re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]+>", " ", page)))


def test_the_same_records_give_the_same_bytes(run, page):
    """A report can be committed, compared and hashed; row order and the time of day do not matter."""
    shuffled = run.results.take(pa.array(list(reversed(range(run.results.num_rows)))))
    assert render(run.summary, run.rows) == page
    assert render(run.summary, SampleRows(shuffled, run.attempts)) == page


def test_records_on_disk_give_the_same_page(run, page, tmp_path):
    """A million records need not be in memory: a dataset serves as well as a table."""
    for name, table in (("results", run.results), ("attempts", run.attempts)):
        (tmp_path / name).mkdir()
        pq.write_table(table, tmp_path / name / "part-00000.parquet")
    rows = SampleRows(pads.dataset(tmp_path / "results"), pads.dataset(tmp_path / "attempts"))
    assert render(run.summary, rows) == page


def test_every_record_can_be_found_in_the_page(run):
    """The drill-down holds each answer, its conversation, scores and attempts, under its sample and cell."""
    packed = pack(run.rows, run.summary.cells, run.summary.scorers)
    index, *blocks = unpacked(packed.blocks)
    assert (packed.shown, packed.all, packed.records) == (60, 60, run.results.num_rows)
    found = {}
    for sample, number in enumerate(index["samples"]["id"]):
        block = blocks[index["samples"]["block"][sample] - 1]
        for k in range(index["samples"]["start"][sample], index["samples"]["start"][sample + 1]):
            record = {name: values[k - block["start"]] for name, values in block["columns"].items()}
            found[record["key"]] = (number, index["records"]["cell"][k], record, block["texts"][record["messages"]])
    cells = {(cell.model, cell.prompt): cell.index for cell in run.summary.cells}
    for row in run.results.to_pylist():
        number, cell, record, messages = found[row["key"]]
        assert (number, cell, record["output"], messages) == (row["sample_id"], cells[row["model"], row["prompt"]], row["output"], row["messages"])
        assert (record["attempt_rows"] is not None) == (row["attempts"] > 1)


def test_samples_are_listed_as_people_count():
    """s2 stands before s10."""
    run = fabricate(12, models=["qwen-max"], prompts=["plain"])
    index = unpacked(pack(run.rows, run.summary.cells, run.summary.scorers).blocks)[0]
    assert index["samples"]["id"] == [f"s{k}" for k in range(1, 13)]


def test_a_big_run_shows_the_telling_samples_first(run, monkeypatch):
    """Above the cap, unanswered and disagreeing samples are kept before others, and the page says how many it shows."""
    monkeypatch.setattr("evalrunner.report.samples.MAX_SAMPLES", 30)
    packed = pack(run.rows, run.summary.cells, run.summary.scorers)
    shown = set(unpacked(packed.blocks)[0]["samples"]["id"])
    answers = {}
    for row in run.results.to_pylist():
        answers.setdefault(row["sample_id"], set()).add(row["score_exact"])
    telling = {sample for sample, scores in answers.items() if len(scores) > 1}
    assert len(shown) == packed.shown == 30
    assert telling <= shown or shown <= telling
    assert "30 of 60 samples" in visible(render(run.summary, run.rows))


def test_long_texts_are_cut_and_say_so():
    """A megabyte in one field does not make a megabyte of report; media lose their bytes."""
    image = json.dumps([{"role": "user", "content": [{"text": "look"}, {"image": "data:image/png;base64," + "A" * 300_000}]}])
    run = fabricate(3, models=["qwen-max"], prompts=["plain"], failing=0, strings={"output": "x" * 1_000_000, "messages": image})
    _, *blocks = unpacked(pack(run.rows, run.summary.cells, run.summary.scorers).blocks)
    for block in blocks:
        assert all(len(text) < 101_000 and "cut; whole in the Parquet files" in text for text in block["columns"]["output"])
        assert json.loads(block["texts"][0])[0]["content"][1]["image"] == "data:image/png;base64,…"


def held_against(old, new, **options):
    """What a page needs to show `new` against `old`."""
    sides = [Side(name, run.results, run.manifest["plan"], {}) for name, run in (("reports/blessed", old), ("now", new))]
    comparison = compare(*sides, Options(**options))
    return Judged(comparison, flipped_samples(comparison, old.results, new.results))


def test_what_changed_against_a_baseline_is_counted_and_shown():
    """The verdict, how many were lost and gained, the exact p, and the lost samples with both answers: readable without a script."""
    old, new = (fabricate(80, models=["qwen-max"], prompts=["plain"], seed=seed) for seed in (3, 4))
    against = held_against(old, new)
    page = render(new.summary, new.rows, judged=against)
    text = visible(page)
    counts = against.comparison.pairs[0].flips["score_exact"]
    assert "Against the baseline reports/blessed" in text
    assert f"{len(counts.lost)} lost and {len(counts.gained)} gained of" in text
    assert len(counts.lost) > 0
    lost = next(one for one in against.flips if one.kind == "lost")
    section = page[page.index('<section id="flips"') : page.index('<section id="tradeoffs"') if '<section id="tradeoffs"' in page else None]
    assert f"<mark>{lost.candidate.output}</mark>" in section
    assert section.index("Lost: right before") < section.index("Gained: wrong before")
    assert "Against the baseline" not in visible(render(new.summary, new.rows))


@pytest.mark.parametrize(
    ("drop", "samples", "margin", "expected"),
    [
        (0.4, 200, 0.0, "Worse"),
        (0.0, 200, 0.0, "No difference shown"),
        (0.0, 40, 0.02, "Inconclusive"),
        (-0.4, 200, 0.02, "Better"),
        (0.0, 400, 0.1, "Not worse"),
    ],
)
def test_the_baseline_verdict_says_what_is_shown_and_no_more(drop, samples, margin, expected):
    """Worse and better are said where the interval shows them; where it does not, how many samples would decide."""
    old = fabricate(samples, models=["qwen-max"], prompts=["plain"], failing=0)
    score = old.results["score_exact"].to_pylist()
    moved = [1.0 - value if k % 100 < abs(drop) * 100 and value == (drop > 0) else value for k, value in enumerate(score)]
    if drop == 0:
        moved = [1.0 - value if k in (5, 6) else value for k, value in enumerate(score)]
    at = old.results.schema.get_field_index("score_exact")
    new = old._replace(results=old.results.set_column(at, "score_exact", pa.array(moved)))
    text = visible(render(new.summary, new.rows, judged=held_against(old, new, margins={"score_exact": margin})))
    assert f"Against the baseline reports/blessed {expected} " in text
    assert ("samples would decide" in text) == (expected in ("Inconclusive", "No difference shown"))


def test_several_cells_against_a_baseline_name_the_worse_ones():
    """With eight configurations the strip counts, and names what got worse or better."""
    old, new = fabricate(120, seed=7), fabricate(120, seed=11)
    against = held_against(old, new)
    text = visible(render(new.summary, new.rows, judged=against))
    worse = sum(pair.metrics["score_exact"].verdict == "worse" for pair in against.comparison.pairs)
    assert worse > 0
    assert f"Worse: {worse} of 8" in text
    most = min(against.comparison.pairs, key=lambda pair: pair.metrics["score_exact"].difference)
    section = text[text.index("Lost: right before") :]
    assert section.index(f"{most.candidate.model} · {most.candidate.prompt}") < 100


def test_a_page_has_no_more_flips_than_a_person_reads():
    """Thousands of flips do not make a page of thousands: the clearest stand in it, and it says how many more there are."""
    old, new = fabricate(300, seed=7), fabricate(300, seed=11)
    against = held_against(old, new)
    few = flipped_samples(against.comparison, old.results, new.results, 2)
    assert len(few) == 2 * 2 * 8 < len(against.flips)
    page = render(new.summary, new.rows, judged=against)
    assert page.count('<article class="flip">') == 45
    lost = sum(len(pair.flips["score_exact"].lost) for pair in against.comparison.pairs)
    assert f"{lost - 30} more; the filter in Samples has all." in visible(page)


def test_every_two_cells_are_held_against_each_other(run):
    """Each pair stands in the matrix both ways and once in its table, with wins, ties and losses; what Holm's correction leaves has an arrow."""
    page = render(run.summary, run.rows)
    section = page[page.index('<section id="pairs"') : page.index('<section id="factors"')]
    for pair in run.summary.pairs:
        assert f'data-duel="{pair.first},{pair.second}"' in section
        assert f'data-duel="{pair.second},{pair.first}"' in section
        assert f"{pair.wins}–{pair.ties}–{pair.losses}" in section
    clear = sum(pair.p_holm < 0.05 for pair in run.summary.pairs)
    assert section.count("▲") == section.count("▼") == clear > 0


def test_what_each_setting_did_is_told(run):
    """Each level has its effect on score, latency, tokens and cost, all else being equal; also where one factor varies alone. One cell has none."""
    text = visible(render(run.summary, run.rows))
    assert "What each setting did" in text
    assert "prompt careful against plain" in text
    sweep = fabricate(20, models=["qwen-max"])
    assert "prompt careful against plain" in visible(render(sweep.summary, sweep.rows))
    alone = fabricate(20, models=["qwen-max"], prompts=["plain"])
    assert "What each setting did" not in visible(render(alone.summary, alone.rows))


def test_what_k_tries_promise_is_shown_with_trials(run):
    """pass@k and pass^k stand below the leaderboard where every sample was asked several times, and nowhere else."""
    thrice = fabricate(30, models=["qwen-max"], trials=3)
    text = visible(render(thrice.summary, thrice.rows))
    two = {cell.prompt: cell.repeats["exact"][1] for cell in thrice.summary.cells}
    assert "pass@k k = 1 pass@k k = 2 pass@k k = 3 pass^k k = 1" in text
    assert text.count(quantities.share(two["plain"].any)) > 0
    assert quantities.share(two["careful"].all) in text[text.index("Of k tries") :]
    assert "pass^k" not in visible(render(run.summary, run.rows))


def test_slices_tell_where_a_configuration_loses():
    """By tag value each cell's paired difference from the best has an interval; other scorers wait folded, with the same."""
    run = fabricate(90, models=["qwen-turbo", "qwen-max"], prompts=["plain"], scorers=("exact", "second"), failing=0.05)
    page = render(run.summary, run.rows)
    text = visible(page[page.index('<section id="slices"') : page.index('<section id="samples"')])
    assert "differences from qwen-max" in text
    frame = run.results.to_pandas()
    level = [dict(pairs)["level"] for pairs in frame["tags"]]
    hard = frame[[one == "2" for one in level]].pivot_table(index="sample_id", columns="model", values="score_exact")
    paired = hard.dropna()
    expected = quantities.points((paired["qwen-turbo"] - paired["qwen-max"]).mean())
    gap = next(one.gaps["exact"] for one in run.summary.slices if (one.tag, one.value) == ("level", "2") and one.gaps)
    assert gap.n == len(paired) < 30
    assert gap.low < gap.difference < gap.high
    assert f"{expected} ({quantities.points_span(gap.low, gap.high)}) n = {gap.n}" in text
    assert "level · second" in text


def test_tokens_stand_beside_the_scores(run):
    """What each answer took, on average, in the leaderboard; kinds nobody used are left out."""
    page = render(run.summary, run.rows)
    board = visible(page[page.index('<section id="leaderboard"') : page.index('<section id="pairs"')])
    assert "Tokens in Cached Tokens out Cost per 1,000" in board
    assert all(quantities.digits(cell.tokens["output"].mean) in board for cell in run.summary.cells)


class Elements(HTMLParser):
    """What a browser would build: the tags, and attributes that could run or load something."""

    def __init__(self):
        super().__init__()
        self.tags, self.risky, self.links = set(), [], []

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.risky += [
            (tag, name, value) for name, value in attrs if name.startswith("on") or name in ("style", "src", "srcset", "srcdoc", "action", "xlink:href")
        ]
        self.links += [value for name, value in attrs if name == "href"]


EVIL = "</script><!--<script><img src=x onerror=alert(1)><svg onload=alert(2)>\"'>]]>{{ 7*7 }}javascript:alert(3)\u2028\u202e"
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
        "response_id",
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
        "reason",
    ),
]


def test_text_from_outside_never_becomes_markup():
    """In every string field at once: the page has the elements of a harmless one, nothing that runs, nothing that loads."""
    harmless, hostile = Elements(), Elements()
    harmless.feed(_evil("harmless words"))
    hostile.feed(_evil(EVIL))
    assert "mark" in hostile.tags
    assert hostile.tags == harmless.tags
    assert hostile.risky == []
    assert all(link.startswith("#") for link in hostile.links)


def _evil(text):
    strings = dict.fromkeys(FIELDS, text)
    spoken = strings | {"messages": json.dumps([{"role": "user", "content": text}])}
    sides = ((spoken | {"output": f"{text} before"}, 3), (spoken, 4), (strings, 4))
    old, now, new = (fabricate(16, models=["a"], prompts=["p"], failing=0.3, strings=put, seed=seed) for put, seed in sides)
    against = held_against(old, now)
    assert len(against.flips) > 0
    against = against._replace(comparison=msgspec.structs.replace(against.comparison, baseline=text))
    return render(new.summary, new.rows, judged=against)


@given(st.recursive(st.none() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=8))
@settings(max_examples=60)
def test_the_data_block_holds_any_text_and_none_that_ends_it(value):
    """What goes in comes out; no character in it can close the element or open a comment."""
    text = str(in_script(value))
    assert json.loads(text) == msgspec.json.decode(msgspec.json.encode(value))
    assert not set(text) & set("<>&\u2028\u2029")


def test_unknown_is_never_zero_or_blank():
    """A model without a price has unknown cost; too few answers give no percentile but what it would take."""
    run = fabricate(30, models=["qwen-max", "qwen3-8b"], prompts=["plain"])
    text = visible(render(run.summary, run.rows))
    assert "No complete price is known" in text
    assert "unknown" in text
    assert "needs n ≥ 500" in text
    assert not re.search(r"\b(nan|None|inf)\b", text)


def test_what_nobody_used_is_not_shown(page):
    """No reasoning tokens, no column for them; no second prompt set, no headings for it."""
    assert "Reasoning" not in visible(page)
    assert "Cached" in visible(page)


def test_a_judge_is_shown_with_what_speaks_for_it(run):
    """Beside a judge's scores: how far it agrees with people and with other judges, how often the order decided, and what it cost."""
    agreed = Agreement(n=40, samples=40, share=0.9, low=0.77, high=0.96, kappa=0.8, kappa_low=0.6, kappa_high=0.95)
    facts = {"asked": 480, "unreadable": 2, "unanswered": 0, "tokens_in": 900, "tokens_out": 90, "spend": {"CNY": 0.42}, "unknown_cost": 0}
    calibrated = JudgeSummary(scorer="judge", judge="qwen-max", calibration=agreed, pairs=0, flips=0, flips_low=None, flips_high=None, first=None, **facts)
    both_orders = JudgeSummary(scorer="pair", judge="qwen-plus", calibration=None, pairs=50, flips=4, flips_low=0.03, flips_high=0.19, first=0.55, **facts)
    pair = JudgePair(
        scorer="judge", first="qwen-max", second="qwen-plus", agreement=msgspec.structs.replace(agreed, kappa=None, kappa_low=None, kappa_high=None)
    )
    summary = msgspec.structs.replace(run.summary, judges=(calibrated, both_orders), judge_pairs=(pair,))
    text = visible(render(summary, run.rows))
    for shown in ("90.0 % 77.0–96.0, n = 40", "0.800", "no labels", "8.0 % 4 / 50 (3.0–19.0)", "55.0 %", "CNY 0.420", "one word only"):
        assert shown in text
    assert "Can the judges be trusted?" not in visible(render(run.summary, run.rows))


@pytest.mark.parametrize("state", ["empty", "unscored", "one cell", "whole", "trials", "two scorers", "many cells"])
def test_any_run_has_a_report(state):
    """Interrupted before the first answer, without scorers, with one cell or forty: there is a page, and it says what it knows."""
    options = {
        "unscored": {"scorers": ()}, "one cell": {"models": ["qwen-max"], "prompts": ["plain"]}, "trials": {"trials": 3},
        "two scorers": {"scorers": ("exact", "fluency")}, "many cells": {"models": [f"m{k}" for k in range(20)]},
    }  # fmt: skip
    run = fabricate(12, **options.get(state, {}))
    results = run.results.slice(0, 0) if state == "empty" else run.results
    if state == "whole":
        results = results.drop_columns(["ttft_ms", "ttft_content_ms", "tpot_ms", "stream"]).append_column("stream", pa.array([False] * results.num_rows))
    summary = summarise(results, None, {**run.manifest, "state": "interrupted"})
    text = visible(render(summary, SampleRows(results)))
    expected = {"empty": "No request has a row yet", "unscored": "Nothing was scored", "one cell": "95 % interval", "many cells": "Drawn: 8 of 40"}
    assert expected.get(state, "Leaderboard") in text


def test_every_text_exists_in_both_languages(run):
    """Nothing is left untranslated, and a translation fills in the same things."""
    fields = string.Formatter()
    for key, (english, chinese) in WORDS.items():
        assert english.strip(), key
        assert chinese.strip(), key
        wanted, given_ = ({name for _, name, _, _ in fields.parse(text) if name} for text in (english, chinese))
        assert wanted == given_, key
    assert '<html lang="zh">' in render(run.summary, run.rows, lang="zh")
    with pytest.raises(ValueError, match="known: en, zh"):
        render(run.summary, run.rows, lang="fr")


def test_words_of_the_script_are_all_delivered():
    """The script asks for no text that the page did not give it."""
    script = (resources.files("evalrunner.report") / "assets" / "report.js").read_text("utf-8")
    asked = set(re.findall(r'\bT\("(\w+)"', script)) | set(re.findall(r'"([da]_\w+)"', script))
    assert asked <= set(WORDS)


def test_fillings_are_escaped():
    """A model's name inside a sentence is text."""
    assert "<b>" not in both("n_infrastructure", share="1 %", model="<b>x</b>")


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (quantities.share(0.8321), "83.2 %"),
        (quantities.share(1), "100 %"),
        (quantities.share(0.99996), "> 99.9 %"),
        (quantities.share(0.0001), "< 0.1 %"),
        (quantities.share(0.0), "0 %"),
        (quantities.share(None), None),
        (quantities.share(float("nan")), None),
        (quantities.digits(0.04213), "0.0421"),
        (quantities.digits(8.416), "8.42"),
        (quantities.digits(12345.6), "12,346"),
        (quantities.digits(9.999), "10.0"),
        (quantities.count(1_234_567), "1.23 M"),
        (quantities.count(0), "0"),
        (quantities.duration(842.3), "842 ms"),
        (quantities.duration(1240), "1.24 s"),
        (quantities.duration(125_000), "2 min 5 s"),
        (quantities.duration(12_000_000), "3 h 20 min"),
        (quantities.money(12.3, "CNY"), "CNY 12.30"),
        (quantities.money(0.01234, "USD"), "USD 0.0123"),
        (quantities.money(None, "USD"), None),
        (quantities.span(0.851, 0.909), "85.1–90.9"),
        (quantities.span(None, 0.9), None),
        (quantities.points(0.0321), "+3.2"),
        (quantities.points(-0.0321), "−3.2"),
        (quantities.points(-0.0001), "0.0"),
        (quantities.points_span(-0.012, 0.034), "−1.2 … +3.4"),
        (quantities.change(12.0, 100.0), "+12 %"),
        (quantities.change(-3.4, 100.0), "−3.4 %"),
        (quantities.change(1.0, 0.0), None),
        (quantities.chance(0.0321), "0.032"),
        (quantities.chance(0.00001), "< 0.001"),
    ],
)
def test_numbers_are_written_with_sense(written, expected):
    """Three significant digits, units, and no rounding that claims all or nothing."""
    assert written == expected


@pytest.mark.long
def test_fifty_thousand_records_stay_small():
    """A run of 50,000 records is a file under 25 MB."""
    run = fabricate(6250, words=150)
    assert len(render(run.summary, run.rows).encode()) < 25_000_000
