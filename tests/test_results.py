"""Reading a results.json, refusing a damaged one, picking numbers from it."""

import json
from pathlib import Path

import numpy as np
import pytest
from fake_results import EXACT, LOSS, make_results
from hypothesis import given
from hypothesis import strategies as st

from s2sjax.errors import UserError
from s2sjax.report.results import arms, by_seed, dump_results, load_results, series, values
from s2sjax.report.tables import comparison_table, score_table


def test_results_are_read_as_they_were_written(tmp_path):
    path = tmp_path / "results.json"
    path.write_text(dump_results(make_results()))
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


def test_a_run_of_one_arm_has_no_comparisons(tmp_path):
    path = tmp_path / "results.json"
    path.write_text(dump_results({**make_results(), "comparisons": []}))
    assert load_results(path)["comparisons"] == []


def refused(path: Path, text: str) -> str:
    """The message, in one line, with which a file of that text is refused."""
    path.write_text(text)
    with pytest.raises(UserError) as error:
        load_results(path)
    assert str(error.value).startswith(f"{path} is damaged (")
    assert "restore it, or delete it and run the experiment" in str(error.value)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda results: results.pop("config"), "KeyError: 'config'"),
        (lambda results: results.pop("series"), "KeyError: 'series'"),
        (lambda results: results.update(series=[]), "it holds no records"),
        (lambda results: results.update(environment=7), "environment must be of type dict"),
        (lambda results: results.update(seconds="long"), "must be real number, not str"),
        (lambda results: results["series"][1].update(epochs=["1", "2"]), "of another type"),
        (lambda results: results["series"][1].update(metric=[]), "of another type"),
        (lambda results: results["series"].insert(1, None), "NoneType"),
        (lambda results: results["series"][1].pop("epochs"), "KeyError: 'epochs'"),
        (lambda results: results["series"][1]["epochs"].pop(), "ValueError: zip()"),
        (lambda results: results["series"][1].update(values=[1, 2]), "'list' object"),
        (lambda results: results["series"][1]["values"].update(x=[1, 2]), "'x'"),
        (lambda results: results["series"][1]["values"].update({"1": [1, None]}), "NoneType"),
        (lambda results: results["series"][1]["values"].update({"1": [1, "0.5"]}), "str"),
        (lambda results: results["series"][1]["values"].update({"1": [1, 10**400]}), "too large"),
        (lambda results: results["series"][1]["values"].update({"1": [1, np.nan]}), "not finite"),
        (lambda results: results["series"].append(results["series"][0]), "there twice"),
    ],
)
def test_damaged_results_are_refused_in_a_sentence(tmp_path, harm, message):
    results = json.loads(dump_results(make_results()))
    harm(results)
    assert message in refused(tmp_path / "results.json", json.dumps(results))


def test_what_is_no_results_json_is_refused(tmp_path):
    path = tmp_path / "results.json"
    refused(path, "[]")
    refused(path, "[" * 200_000)
    refused(path, dump_results(make_results())[:-40])
    assert "not finite" in refused(path, dump_results(make_results()).replace("0.61", "1e999"))


def test_missing_and_binary_results_are_refused(tmp_path):
    with pytest.raises(UserError, match="does not exist: run the experiment"):
        load_results(tmp_path / "results.json")
    (tmp_path / "results.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="is damaged"):
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
    with pytest.raises(
        ValueError, match=r"Seeds \[1\] of arm 'forward' lack .* at the last epoch, 2"
    ):
        values({**results, "records": short}, "forward", EXACT)
