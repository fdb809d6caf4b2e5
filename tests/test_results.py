"""Reading a results.json, refusing a damaged one, picking numbers from it."""

import json

import pytest
from fake_results import EXACT, LOSS, make_results
from hypothesis import given
from hypothesis import strategies as st

from s2sjax.errors import UserError
from s2sjax.report import comparison_table, score_table
from s2sjax.results import arms, by_seed, dump_results, load_results, series, values


def test_results_are_read_as_they_were_written(tmp_path):
    path = tmp_path / "results.json"
    path.write_text(json.dumps(make_results()))
    read = load_results(path)
    assert score_table(read, {"x": EXACT}) == score_table(make_results(), {"x": EXACT})
    assert comparison_table(read) == comparison_table(make_results())


places = st.tuples(
    st.sampled_from(["a", "b, c"]),  # arm
    st.integers(0, 12),  # seed
    st.sampled_from(["train", "dev"]),
    st.integers(1, 20),  # epoch
    st.sampled_from([EXACT, LOSS]),
)


@given(st.dictionaries(places, st.floats(allow_nan=False, allow_infinity=False), min_size=1))
def test_a_series_a_line_holds_every_record(tmp_path_factory, measured):
    names = ("arm", "seed", "split", "epoch", "metric")
    records = [dict(zip(names, p, strict=True)) | {"value": v} for p, v in measured.items()]
    path = tmp_path_factory.mktemp("series") / "results.json"
    path.write_text(dump_results({**make_results(), "records": records}))
    read = load_results(path)
    found = {tuple(r[name] for name in names): r["value"] for r in read["records"]}
    assert found == measured
    assert len(read["records"]) == len(records)
    assert {k: v for k, v in read.items() if k != "records"} == json.loads(
        json.dumps({k: v for k, v in make_results().items() if k != "records"})
    )


def test_a_series_of_a_committed_run_is_one_line_for_all_seeds():
    text = dump_results(make_results())
    assert sum(line.startswith('{"arm"') for line in text.splitlines()) == 4  # arms x metrics


@pytest.mark.parametrize(
    "harm",
    [
        lambda line: line.pop("epochs"),
        lambda line: line["epochs"].pop(),
        lambda line: line.update(values=[1, 2]),
        lambda line: line["values"].update(x=[1, 2]),
    ],
    ids=["no epochs", "too few epochs", "no seeds", "a seed that is no number"],
)
def test_damaged_series_are_refused(tmp_path, harm):
    results = json.loads(dump_results(make_results()))
    harm(results["series"][1])
    path = tmp_path / "results.json"
    path.write_text(json.dumps(results))
    with pytest.raises(UserError, match="cannot be used"):
        load_results(path)


def damaged(change: str) -> str:
    """A results.json with one thing wrong."""
    results = make_results()
    match change:
        case "cut":
            return json.dumps(results)[:-40]
        case "list":
            return "[]"
        case "nan":
            results["records"][0]["value"] = float("nan")
        case "no config":
            del results["config"]
        case "no seed":
            del results["records"][3]["seed"]
        case "text value":
            results["records"][2]["value"] = "0.5"
        case "no record":
            results["records"][1] = None
        case "twice":
            results["records"].append(results["records"][0] | {"value": 0.5})
        case "comparison":
            del results["comparisons"][1]["ci95"]
    return json.dumps(results)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("cut", "Expecting|Unterminated"),
        ("list", "its content is a list, not an object"),
        ("nan", "it holds NaN"),
        ("no config", "its 'config' is missing or not a dict"),
        ("no seed", r"its records\[3\] has no usable 'seed'"),
        ("text value", r"its records\[2\] has no usable 'value'"),
        ("no record", r"its records\[1\] has no usable 'arm'"),
        ("twice", r"its records\[24\] repeats an earlier one"),
        ("comparison", r"its comparisons\[1\] has no usable 'ci95'"),
    ],
)
def test_damaged_results_are_refused_in_a_sentence(tmp_path, change, message):
    path = tmp_path / "results.json"
    path.write_text(damaged(change))
    with pytest.raises(UserError, match=message) as error:
        load_results(path)
    assert str(error.value).startswith(str(path))
    assert "restore it, or delete it and run the experiment" in str(error.value)
    assert "\n" not in str(error.value)


def test_missing_and_binary_results_are_refused(tmp_path):
    with pytest.raises(UserError, match="does not exist: run the experiment"):
        load_results(tmp_path / "results.json")
    (tmp_path / "results.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="cannot be used"):
        load_results(tmp_path / "results.json")
    with pytest.raises(UserError, match="cannot be read: Not a directory"):
        load_results(tmp_path / "results.json" / "results.json")


def test_values_are_those_of_the_last_epoch_in_seed_order():
    results = make_results()
    assert arms(results) == ["forward", "reversed"]
    assert values(results, "forward", EXACT) == [0.10, 0.12, 0.11]
    assert by_seed(results, "forward", EXACT) == {0: 0.10, 1: 0.12, 2: 0.11}
    curves = series(results, "reversed", LOSS, "test")
    assert [*curves] == [0, 1, 2]
    assert [*curves[0].items()] == [(1, 0.0), (2, 0.1)]


def test_missing_records_are_named_with_what_there_is():
    results = make_results()
    message = r"metric 'bleu', split 'dev'; there are arms \['forward', 'rev.*metrics .*loss"
    with pytest.raises(ValueError, match=message):
        values(results, "forward", "bleu", "dev")
    last = {"seed": 1, "arm": "forward", "epoch": 2, "metric": EXACT}
    short = [r for r in results["records"] if any(r[key] != last[key] for key in last)]
    with pytest.raises(ValueError, match=r"Seeds \[1\] of arm 'forward' have no .* at epoch 2"):
        values({**results, "records": short}, "forward", EXACT)
