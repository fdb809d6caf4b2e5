"""What the experiment on attention tells of results: in both orders of the source, and in one."""

import json
from dataclasses import replace

import attention
import pytest
from fake_results import EXACT, LOSS, make_results
from test_experiments import refused

from s2sjax.ablation import comparisons
from s2sjax.report import quantity, write_report
from s2sjax.results import Results
from s2sjax.taskconfig import Toy

EXPERIMENT = attention.EXPERIMENT
FORCED = "teacher_forced/content"
STRINGS = Toy("copy", symbols=26, min_length=1, max_length=8, longer=5, train=40, dev=5, test=60)
PRESETS = [*attention.PRESETS]
TWO_ORDERS = [preset for preset in PRESETS if preset not in ("lengths", "smoke")]


def right(arm: int, seed: int, length: int) -> float:
    """A share that tells arm, seed and length."""
    return 1 / (2 + arm + length) + seed / 100


def finished(preset: str, seeds: int) -> Results:
    """Results of a preset on a few strings; reversal gains 40 points without attention."""
    study = EXPERIMENT.presets[preset][1]
    run = replace(study.run, task=STRINGS, model=replace(study.run.model, hidden_size=4))
    ablation = EXPERIMENT.ablation(preset, replace(study, run=run, seeds=seeds))
    scores = {}
    for i, (arm, run) in enumerate(ablation.arms.items()):
        gains = run.model.attention is None and run.text.source_order == "reversed"
        scores[arm] = {
            EXACT: [0.5 + 0.4 * gains + 0.01 * seed for seed in range(seeds)],
            FORCED: [0.75] * seeds,
            LOSS: [0.5] * seeds,
        }
        for n in range(1, 14):
            scores[arm][f"{EXACT}/length_{n}"] = [right(i, seed, n) for seed in range(seeds)]
    results = make_results(scores)
    last = [r for r in results["records"] if r["epoch"] == 2]
    named = {"experiment": EXPERIMENT.name, "preset": preset}
    config = json.loads(json.dumps(ablation.config))
    compared = comparisons(last, EXPERIMENT.pairs(preset, study), EXPERIMENT.metrics)
    return results | named | {"config": config, "comparisons": compared}


def test_one_order_is_told_by_length_and_against_no_attention():
    results = finished("lengths", 3)
    told = EXPERIMENT.tables(results)
    assert [*told] == ["scores", "paired", "lengths", "sizes", "seeds"]
    none, dot, additive = names = [f"{a}, forward" for a in ("no attention", "dot", "additive")]
    assert {(c["a"], c["b"]) for c in results["comparisons"]} == {(dot, none), (additive, none)}
    table = told["lengths"]
    assert table.headers == ("letters", *names)
    means = [[quantity(right(arm, 1, n), EXACT) for arm in range(3)] for n in range(1, 14)]
    assert table.rows == tuple((str(n), *row) for n, row in enumerate(means, start=1))
    assert "up to 8" in table.note
    said = EXPERIMENT.headline(results)
    assert "mean of 3 seeds" in said
    assert "reversed" not in said
    assert all(f"{cell}: forward 51.0" in said for cell in attention.cells("lengths"))


def test_lengths_that_are_drawn_together_count_by_their_questions(monkeypatch, tmp_path):
    drawn = []
    monkeypatch.setattr(attention, "share_by", lambda *arguments: drawn.append(arguments))
    EXPERIMENT.cover(finished("lengths", 3), tmp_path / "cover.png")
    ((shares, counts, path, *_),) = drawn
    assert path == tmp_path / "cover.png"
    assert [*counts] == ["1–2", "3–4", "5–6", "7–8", "9–10", "11–12", 13]
    assert sum(counts.values()) == 2 * STRINGS.test
    lengths = [len(source) for source, _ in attention._test_pairs(finished("lengths", 3))]
    for arm, shown in enumerate(shares.values()):
        for label, seeds in shown.items():
            first, *_, end = [int(part) for part in str(label).split("–")] * 2
            asked = [n for n in lengths if first <= n <= end]
            assert counts[label] == len(asked)
            whole = [sum(right(arm, seed, n) for n in asked) / len(asked) for seed in range(3)]
            assert seeds == pytest.approx(whole)


@pytest.mark.parametrize("preset", ["copy", "lengths"])
def test_a_run_without_checkpoints_still_has_its_report(tmp_path, preset):
    results = finished(preset, 3)
    assert attention.alignments(results, tmp_path) == []
    told = EXPERIMENT.report(results, tmp_path)
    write_report(tmp_path / "report.md", [EXPERIMENT.headline(results), *told])
    report = (tmp_path / "report.md").read_text(encoding="utf-8")
    pictures = {path.name for path in tmp_path.glob("*.png")}
    both = {"contrasts.png", "lengths.png"} if preset == "copy" else set()
    assert pictures == {"scores.png"} | both
    for name in pictures:
        assert f"]({name})" in report
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")


def test_two_orders_are_predicted_where_the_seeds_can_tell():
    few, enough = (EXPERIMENT.tables(finished("copy", seeds)) for seeds in (3, 6))
    assert [*few] == ["scores", "paired", "left", "sizes", "seeds"]
    assert [*enough] == ["scores", "paired", "left", "folklore", "sizes", "seeds"]
    rows = enough["folklore"].rows
    assert [row[0] for row in rows] == [
        "no attention: reversal helps",
        "dot: order does not matter",
    ]
    assert all("held" in row[-1] for row in rows)
    none, dot = enough["left"].rows
    assert (none[0], dot[0]) == ("no attention", "dot")
    assert "40.0" in none[2]
    assert "40.0" in dot[3]


@pytest.mark.parametrize("preset", TWO_ORDERS)
def test_predictions_are_of_pairs_that_are_compared(preset):
    pairs = attention.pairs(preset)
    told = attention.predictions(preset)
    assert {(p.a, p.b) for p in told} <= {*pairs}
    assert {p.expect for p in told} == {"greater", "equal"}
    for p in told:
        cell = p.claim.split(":")[0]
        assert (p.a, p.b) == (f"{cell}, reversed", f"{cell}, forward")
        settings = attention.cells(preset)[cell]
        near = settings["attention"] is not None or settings["directions"] == 2
        assert p.expect == ("equal" if near else "greater")


@pytest.mark.parametrize("preset", ["lengths", "copy"])
@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--model.attention", "general"),
        ("--model.directions", "2"),
        ("--model.encoder-layers", "3"),
        ("--model.decoder-layers", "3"),
    ],
)
def test_what_the_arms_set_is_not_asked_for(monkeypatch, capsys, tmp_path, preset, option, value):
    monkeypatch.chdir(tmp_path)
    said = refused(monkeypatch, capsys, attention, preset, option, value)
    assert f"{option} is set by the arms of this preset, so it cannot be {value}" in said
    assert not (tmp_path / "runs").exists()
