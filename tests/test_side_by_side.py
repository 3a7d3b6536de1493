"""Several runs over the same samples in one report."""

from __future__ import annotations

import re

import pytest
from test_decisions import HASTY, IN_USE, Desk
from test_report import visible

import evalrunner as er
from evalrunner.cli import main
from evalrunner.decisions import Chosen
from evalrunner.errors import ConfigError, DatasetError
from evalrunner.side_by_side import together


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The same config twice, with another wording under the same name the second time; a third run of another model, with failures."""
    desk = Desk(tmp_path_factory.mktemp("desk"))
    made = {
        "old": desk.run("old", "--limit", "60"),
        "new": desk.run("new", "--limit", "60", prompts=f"p: {HASTY}"),
        "other": desk.run("other", "--limit", "60", models="{id: qwen-max, provider: simulator}", faults="[{kind: error, status: 500, share: 0.1}]"),
        "few": desk.run("few", "--limit", "20"),
        "two": desk.run("two", "--limit", "60", prompts=f"p: {IN_USE}, q: {HASTY}"),
    }
    assert [code for _, code in made.values()] == [0, 0, 0, 0, 0]
    return {name: path for name, (path, _) in made.items()}


def test_runs_of_one_config_stand_side_by_side(runs, tmp_path, capsys):
    """Their cells have the same name, so the run's directory tells them apart, in every table; each run's prompts and facts are listed."""
    out = tmp_path / "report.html"
    assert main(["report", str(runs["old"]), str(runs["new"]), "--out", str(out)]) == 0
    assert capsys.readouterr().out.strip() == str(out)
    page = out.read_text("utf-8")
    text = visible(page)
    assert re.search(r"120 / 120 requests answered", text)
    assert "run old" in text
    assert "run new" in text
    assert "60 samples, ordered by numeric" in text
    assert re.search(r"run new against old", text)
    assert text.count("Started") == 2
    assert "Answer quickly." in page[page.index('<section id="provenance"') :]
    again = er.make_report([er.open_run(runs["old"]), runs["new"]], tmp_path / "again.html")
    assert again.read_text("utf-8") == page


def test_runs_of_different_models_need_no_other_name(runs, tmp_path):
    """Two models in two runs read like two models in one; what failed of one is not hidden by the other."""
    page = er.make_report([runs["old"], runs["other"]], tmp_path / "report.html").read_text("utf-8")
    text = visible(page)
    assert "run old" not in text
    assert "qwen-max’s requests failed for reasons that say nothing about the model" in text
    with together([Chosen(runs["old"]), Chosen(runs["other"])]) as many:
        keys = many.results.to_table(columns=["key"])["key"].to_pylist()
        assert len(set(keys)) == len(keys) == 120
        assert set(many.attempts.to_table(columns=["key"])["key"].to_pylist()) <= set(keys)


def test_only_what_is_alike_stands_in_one_page(runs, tmp_path):
    """Other samples are refused by name; so is what only one run can have, and a page that would take the place of one run's own."""
    with pytest.raises(DatasetError, match=r"few: prompt set sums has other samples than in .*old"):
        er.make_report([runs["old"], runs["few"]], tmp_path / "report.html")
    for options in ({}, {"out": tmp_path / "report.html", "baseline": runs["old"]}):
        with pytest.raises(ConfigError, match="hint: --out FILE"):
            er.make_report([runs["old"], runs["new"]], **options)
    with pytest.raises(ConfigError, match="is of the whole of them"):
        er.make_report([f"{runs['two']}[prompt=p]", runs["new"]], tmp_path / "report.html")


def test_scores_that_were_computed_differently_stand_in_no_page_together(runs, tmp_path):
    """`compare` refuses another target or other options of a scorer, and so does a page of both runs: ties between such scores would mean nothing."""
    strict = er.run(runs["old"].parent / "old.yaml", out=tmp_path / "strict", limit=60, overrides=['prompt_sets.0.target="{{ answer + 1 }}"'])
    with pytest.raises(DatasetError, match=r"strict: sums: score_numeric was computed differently than in .*old \(target: .*answer \+ 1"):
        er.make_report([runs["old"], strict], tmp_path / "report.html")
