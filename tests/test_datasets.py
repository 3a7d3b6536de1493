"""Data files: every format gives the same samples, every mistake its line."""

import csv
import json
from array import array

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalrunner.errors import DatasetError
from evalrunner.plan.datasets import Dataset, FileRows, InlineRows, Selection, id_hash
from evalrunner.plan.loaders import MAX_PROBLEMS
from evalrunner.plugins import find

ROWS = [{"id": f"q{number}", "question": f"ü, “{number}”\nsecond line", "level": "easy"} for number in range(30)]


def dataset(path, **selection):
    return Dataset(FileRows(path, find("loaders", path.suffix)), Selection(**selection))


def write(folder, suffix, rows):
    path = folder / f"data{suffix}"
    if suffix == ".jsonl":
        path.write_text("\n\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    elif suffix == ".json":
        path.write_text(json.dumps(rows, indent=1), encoding="utf-8-sig")
    elif suffix == ".yaml":
        path.write_text("".join(f"- {json.dumps(row)}\n" for row in rows), encoding="utf-8")
    elif suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        with path.open("w", encoding="utf-8-sig", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]), delimiter="\t" if suffix == ".tsv" else ",")
            writer.writeheader()
            writer.writerows(rows)
    return path


def mistakes(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DatasetError) as caught:
        list(dataset(path))
    return [problem.removeprefix(f"{path}:") for problem in caught.value.problems]


FORMATS = [".jsonl", ".json", ".csv", ".tsv", ".parquet", ".yaml"]


@pytest.mark.parametrize("suffix", FORMATS)
def test_every_format_gives_the_same_samples(tmp_path, suffix):
    """Ids, data, tags and hashes do not depend on the file's format: a study can change it without losing its pairs."""
    found = list(dataset(write(tmp_path, suffix, ROWS), id="id", tags=("level",)))
    same = list(Dataset(InlineRows(ROWS, [""] * len(ROWS)), Selection(id="id", tags=("level",))))
    assert [(sample.id, sample.data, sample.hash, sample.tags) for sample in found] == [(sample.id, sample.data, sample.hash, sample.tags) for sample in same]


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_random_choice_is_the_same_in_every_format(tmp_path, suffix):
    """`sample: 7` with a seed chooses the same rows from any file, in the file's order; another seed chooses others; more rows hold the fewer."""
    path = write(tmp_path, suffix, ROWS)
    chosen = [sample.id for sample in dataset(path, id="id", sample=7, seed=3)]
    assert chosen == ["q4", "q13", "q14", "q15", "q19", "q25", "q28"]
    assert chosen == sorted(chosen, key=lambda name: int(name[1:]))
    assert chosen == [sample.id for sample in Dataset(InlineRows(ROWS, [""] * len(ROWS)), Selection(id="id", sample=7, seed=3))]
    assert chosen != [sample.id for sample in dataset(path, id="id", sample=7, seed=4)]
    assert set(chosen) < {sample.id for sample in dataset(path, id="id", sample=12, seed=3)}


def test_limit_takes_the_first_rows_and_looks_no_further(tmp_path):
    """A mistake beyond the rows asked for is not in the way."""
    path = tmp_path / "data.jsonl"
    path.write_text('{"a": 1}\n{"a": 2}\nbroken\n', encoding="utf-8")
    assert [sample.id for sample in dataset(path, limit=2)] == ["1", "2"]
    assert len(dataset(path, limit=2)) == 2


@pytest.mark.parametrize(
    ("suffix", "content", "expected"),
    [
        (".jsonl", '{"a": 1}\n{"a": }\n', ["2: not JSON: invalid character (column 7)"]),
        (
            ".jsonl",
            '{"a": 1}\n[1]\n3\n"x"\nnull\n{}\n',
            [
                "2: should be an object (column: value), not a list",
                "3: should be an object (column: value), not a number",
                "4: should be an object (column: value), not text",
                "5: should be an object (column: value), not null",
                "6: the object is empty",
            ],
        ),
        (".jsonl", b'{"a": 1}\n{"a": "\xff"}\n', ["2: not UTF-8: byte 0xff at position 8"]),
        (".jsonl", "", ["1: the file has no rows"]),
        (".jsonl", "\n\n", ["1: the file has no rows"]),
        (".jsonl", '{"a": NaN}\n', ["1: not JSON: invalid character (column 7)"]),
        (".jsonl", '{"a": "\\ud800"}\n', ["1: not JSON: "]),
        (".jsonl", "{" + ", ".join(f'"c{n}": 1' for n in range(10_001)) + "}\n", ["1: 10,001 columns; at most 10,000 are read"]),
        (".jsonl", "[" * 100_000, ["1: not JSON: "]),
        (".jsonl", "a: 1".encode("utf-16"), ["1: this is UTF-16; save the file as UTF-8"]),
        (
            ".json",
            '[{"a": 1},\n {"a": 2},\n 3,\n {"a": }]',
            ["3: should be an object (column: value), not a number", "4: not JSON: Expecting value (column 8)"],
        ),
        (".json", '{"a": 1}', ["1: should be a JSON list of objects (hint: a file with one object per line is called .jsonl)"]),
        (".json", '[{"a": 1}\n {"a": 2}]', ["2: not JSON: expected ',' or ']' (column 2)"]),
        (".json", '[{"a": 1}', ["1: not JSON: expected ',' or ']' (column 10)"]),
        (".json", '[{"a": 1}]\n[]', ["2: not JSON: text after the end of the list (column 1)"]),
        (".json", '[{"a": Infinity}]', ["1: not JSON: Infinity is not JSON"]),
        (".json", "[]", ["1: the file has no rows"]),
        (".json", "", ["1: the file has no rows"]),
        (".csv", 'a,b\n1,2\n"x\ny",3\n1,2,3\n4\n\n5,6\n', ["5: 3 values for 2 columns (hint: quote a value", "6: 1 values for 2 columns"]),
        (".csv", "a,b,a\n1,2,3\n", ["1: column 3 has the name 'a' again"]),
        (".csv", "a,,b\n1,2,3\n", ["1: column 2 has no name"]),
        (".csv", 'a,b\n1,"2\n', ["2: not CSV: unexpected end of data"]),
        (".csv", b"a,b\n1,\xe4\n2,3\n", ["2: not UTF-8: byte 0xe4 at position 3"]),
        (".csv", "a,b\n", ["1: the file has no rows"]),
        (".csv", "", ["1: the file has no rows"]),
        (".csv", ",".join(f"c{n}" for n in range(1_000_000)), ["1: 1,000,000 columns; at most 10,000 are read"]),
        (".tsv", "a\tb\n1\t2\t3\n", ["2: 3 values for 2 columns (hint: quote a value that holds '\\t')"]),
        (".yaml", "- {a: 1}\n- 3\n", ["2: should be an object (column: value), not a number"]),
        (".yaml", "- {a: 1, a: 2}\n", ["1:10: a: written twice (hint: first at line 1, column 4)"]),
        (".yaml", "a: 1\n", ["1: should be a list of mappings, not an object"]),
        (".yaml", "- {a: 1\n", ["2:1: did not find expected ',' or '}'"]),
        (".yaml", "", ["1: the file has no rows"]),
        (".parquet", b"PAR1 no PAR1", ["1: not readable as Parquet: "]),
        (".parquet", b"", ["1: not readable as Parquet: "]),
    ],
)
def test_a_broken_file_says_which_line(tmp_path, suffix, content, expected):
    """Every mistake has its line, several are told at once, and nothing else is raised."""
    found = mistakes(tmp_path / f"data{suffix}", content)
    assert len(found) == len(expected)
    assert all(problem.startswith(start) for problem, start in zip(found, expected, strict=True)), found


def test_twenty_mistakes_are_enough(tmp_path):
    """A file of the wrong kind does not fill the terminal."""
    found = mistakes(tmp_path / "data.jsonl", "oops\n" * 500)
    assert len(found) == MAX_PROBLEMS + 1
    assert found[-1].endswith("the check stops after 20 mistakes")


def test_a_wrong_file_name_is_put_right(tmp_path):
    """The nearest name in the folder is offered."""
    write(tmp_path, ".jsonl", ROWS)
    with pytest.raises(DatasetError, match=r"dta\.jsonl: cannot be read: No such file or directory \(hint: did you mean 'data\.jsonl'\?\)"):
        list(dataset(tmp_path / "dta.jsonl"))


def test_values_of_a_csv_stay_text(tmp_path):
    """`007` and `1e3` are what stands in the file."""
    path = tmp_path / "data.csv"
    path.write_text("a,b\n007,1e3\n", encoding="utf-8")
    assert next(iter(dataset(path))).data == {"a": "007", "b": "1e3"}


def test_a_cell_may_be_a_whole_document(tmp_path):
    """Longer than the 128 KB Python's reader allows by itself."""
    path = tmp_path / "data.csv"
    path.write_text(f"a,b\n{'x' * 300_000},1\n", encoding="utf-8")
    assert len(next(iter(dataset(path))).data["a"]) == 300_000


def test_parquet_values_become_json_values(tmp_path):
    """Times, decimals and bytes have a text; numbers stay numbers."""
    path = tmp_path / "data.parquet"
    table = {"t": pa.array([0], pa.timestamp("us", "UTC")), "d": pa.array(["1.50"]).cast(pa.decimal128(5, 2)), "b": [b"x"], "n": [3], "l": [[1, 2]]}
    pq.write_table(pa.table(table), path)
    assert next(iter(dataset(path))).data == {"t": "1970-01-01T00:00:00Z", "d": "1.50", "b": "eA==", "n": 3, "l": [1, 2]}


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"key": "a"}, "no column is called 'id', which `id` names (hint: it has 'key')"),
        ({"id": None}, "the id (id) is empty"),
        ({"id": ""}, "the id (id) is empty"),
        ({"id": [1]}, "the id (id) is a list"),
        ({"id": "a", "levl": 1}, "no column is called 'level', which `tags` names (hint: did you mean 'levl'?)"),
    ],
)
def test_the_columns_named_in_the_config_must_be_there(row, expected):
    """A missing id or tag names the row and the nearest column."""
    with pytest.raises(DatasetError) as caught:
        list(Dataset(InlineRows([row], ["f:1"]), Selection(id="id", tags=("level",) if "levl" in row else ())))
    assert caught.value.problems[0].startswith(f"f:1: {expected}")


def test_ids_are_text_and_default_to_the_row_number():
    """Numbers as ids work; without an id column the first row is 1."""
    rows = InlineRows([{"id": 7}, {"id": True}, {"id": "x"}], ["", "", ""])
    assert [sample.id for sample in Dataset(rows, Selection(id="id"))] == ["7", "true", "x"]
    assert [sample.id for sample in Dataset(rows, Selection())] == ["1", "2", "3"]


@settings(deadline=None)
@given(st.lists(st.text(max_size=3), min_size=1))
def test_duplicate_ids_name_both_places(names):
    """Every second use of an id is found, with the place of the first."""
    rows = [{"id": f"i{name}"} for name in names]
    data = Dataset(InlineRows(rows, [f"f:{line}" for line in range(1, len(rows) + 1)]), Selection(id="id"))
    found = list(data.duplicates(array("Q", [id_hash(sample.id) for sample in data])))
    assert len(found) == len(names) - len(set(names))
    for line in found:
        second, first = line.split(": ")[0], line.rsplit(" at ", 1)[1]
        assert rows[int(second[2:]) - 1] == rows[int(first[2:]) - 1]
        assert int(first[2:]) < int(second[2:])


def test_a_file_that_changes_while_it_is_in_use_stops_the_reading(tmp_path):
    """A run never mixes two versions of its data."""
    path = write(tmp_path, ".jsonl", ROWS)
    data = dataset(path, limit=3)
    assert len(data) == 3
    path.write_text('{"other": 1}\n', encoding="utf-8")
    with pytest.raises(DatasetError, match="the file changed while it was in use"):
        list(data)


def test_the_hash_of_a_sample_is_that_of_its_data():
    """The order of columns does not matter, every value does."""
    data = Dataset(InlineRows([{"a": 1, "b": 2}, {"b": 2, "a": 1}, {"a": 1, "b": "2"}], ["", "", ""]), Selection())
    first, second, third = data
    assert first.hash == second.hash != third.hash
