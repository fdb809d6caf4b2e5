"""Verdicts: at their boundaries, in words, and where there are no results yet."""

import itertools
from typing import Any

import numpy as np
import pytest
from fake_results import EXACT, LOSS, SCORES, make_results
from hypothesis import given, settings
from hypothesis import strategies as st

from s2sjax.report.claims import (
    Expect,
    Prediction,
    Published,
    epochs_to,
    judge,
    paired,
    prediction_table,
    published_table,
    threshold_table,
    verdict_of,
)
from s2sjax.report.results import Results
from s2sjax.report.stats import compare, next_seed_range
from s2sjax.report.tables import number, score

FORWARD = SCORES["forward"][EXACT]
WHAT, SAID, OURS, N, MORE, SETTING, VERDICT = range(7)


def published(*figures: Published, results: Results | None = None) -> list[tuple[str, ...]]:
    """Rows of a table."""
    return [*published_table([(results or make_results(), f) for f in figures]).rows]


def growing(reached: dict[str, list[int | None]], last: int = 50) -> dict[str, Any]:
    """Dev curves of arms whose seeds reach .5 (and a loss of .5) at an epoch, or never."""
    records = [
        {
            "arm": arm,
            "seed": seed,
            "split": "dev",
            "epoch": epoch,
            "metric": metric,
            "value": high if first is not None and epoch >= first else low,
        }
        for arm, firsts in reached.items()
        for seed, first in enumerate(firsts)
        for epoch in range(last, 0, -5)
        for metric, low, high in ((EXACT, 0.4999, 0.5), (LOSS, 0.5001, 0.5))
    ]
    return {**make_results(), "records": records}


# --- published figures ------------------------------------------------------------------------


def test_a_published_figure_stands_beside_our_seeds():
    figure = Published(
        "Saitoh, forward", 0.1134, "forward", EXACT, source="cell 12", setting="3 digits"
    )
    table = published_table([(make_results(), figure)])
    low, high = next_seed_range(FORWARD)
    assert table.title == "Published figures and ours: exact match, free-running"
    assert table.headers[OURS] == "ours"
    assert table.rows == (
        (
            "Saitoh, forward (cell 12)",
            "11.34 %",
            score(FORWARD, EXACT),
            "3",
            f"{number(low, EXACT)} to {number(high, EXACT)}",
            "3 digits",
            "inside the seed spread",
        ),
    )


@pytest.mark.parametrize(
    ("metric", "unit"), [(EXACT, 1e-4), (LOSS, 1e-4)], ids=["per cent", "loss"]
)
def test_inside_is_what_rounds_into_the_range_of_one_more_seed(metric, unit):
    low, high = next_seed_range(SCORES["forward"][metric])
    decimals = 4 if metric == LOSS else 2
    wants = {
        low - 0.49 * unit: "inside the seed spread",
        low - 0.51 * unit: "outside: below",
        high + 0.49 * unit: "inside the seed spread",
        high + 0.51 * unit: "outside: above",
    }
    figures = (Published("x", v, "forward", metric, decimals=decimals) for v in wants)
    rows = published(*figures)
    assert [row[VERDICT] for row in rows] == [*wants.values()]


def test_a_figure_stands_for_all_that_rounds_to_it():
    scores = {"a": {EXACT: [0.985, 0.985, 0.985]}}
    coarse, fine = (Published("x", 0.98, "a", EXACT, decimals=d) for d in (0, 1))
    rows = published(coarse, fine, results=make_results(scores))
    assert [row[SAID] for row in rows] == ["98 %", "98.0 %"]
    assert [row[VERDICT] for row in rows] == ["inside the seed spread", "outside: below"]
    scores = {"a": {LOSS: [0.774, 0.774, 0.774]}}
    logged = [Published("x", 0.77, "a", LOSS, decimals=d) for d in (2, 3)]
    rows = published(*logged, results=make_results(scores))
    assert [row[SAID] for row in rows] == ["0.77", "0.770"]
    assert [row[VERDICT] for row in rows] == ["inside the seed spread", "outside: below"]


def test_the_best_epoch_is_each_seeds_own_and_the_least_of_a_loss():
    curves = {0: (0.2, 0.9, 0.4), 1: (0.8, 0.1, 0.3)}
    records = [
        {"arm": "a", "seed": s, "split": "dev", "epoch": e, "metric": metric, "value": value}
        for metric in (EXACT, LOSS)
        for s, curve in curves.items()
        for e, value in enumerate(curve, start=1)
    ]
    best = [Published("x", 0.5, "a", metric, "dev", "best") for metric in (EXACT, LOSS)]
    exact, loss = published(*best, results={**make_results(), "records": records})
    assert exact[OURS] == score([0.9, 0.8], EXACT)
    assert loss[OURS] == score([0.2, 0.1], LOSS)
    assert "dev set, best epoch" in exact[5]


def test_the_reason_is_given_outside_only():
    inside = Published("x", 0.11, "forward", EXACT, reason="other initial weights")
    outside = inside._replace(value=0.9)
    assert [row[VERDICT] for row in published(inside, outside)] == [
        "inside the seed spread",
        "outside: above; other initial weights",
    ]


def test_what_was_never_published_is_new():
    (row,) = published(Published("swapped", None, "forward", EXACT, source="a log"))
    assert row[:OURS] == ("swapped", "–")  # nobody's figure has no source
    assert row[VERDICT] == "new"
    assert row[OURS] == score(FORWARD, EXACT)


def test_one_seed_has_no_spread():
    results = make_results({"a": {EXACT: [0.5]}})
    (row,) = published(Published("x", 0.9, "a", EXACT), results=results)
    assert row[OURS:] == ("50.0 %", "1", "–", "–", "one seed: no spread")


def test_what_has_not_been_run_yet_is_dashes():
    figure = Published("x", 0.9, "attention", EXACT, "train", epoch=7, setting="as ours")
    (row,) = published_table([(None, figure)]).rows
    assert row[:OURS] == ("x", "90.00 %")
    assert row[OURS:] == ("–", "–", "–", "as ours, train set, epoch 7", "not run yet")


def test_figures_of_several_files_and_metrics_join_in_one_table():
    others = make_results({"attention": {LOSS: [0.2, 0.3]}})
    table = published_table(
        [
            (make_results(), Published("x", 0.1, "forward", EXACT)),
            (others, Published("y", 0.25, "attention", LOSS)),
        ]
    )
    assert table.title == "Published figures and ours"
    assert [row[WHAT] for row in table.rows] == [
        "x: exact match, free-running",
        "y: loss, nats per token",
    ]
    assert table.rows[1][OURS:SETTING] == (score([0.2, 0.3], LOSS), "2", "0.0000 to 1.3504")


def test_bleu_is_held_against_in_its_own_points():
    results = make_results({"a": {"BLEU": [98.0, 99.0]}, "b": {"BLEU": [28.0, 28.0]}})
    above, same = (Published("x", v, "b", "BLEU", decimals=1) for v in (28.06, 28.04))
    rows = published(Published("x", 99.5, "a", "BLEU"), above, same, results=results)
    assert [row[SAID] for row in rows] == ["99.50", "28.1", "28.0"]
    assert rows[0][MORE].endswith(" to 100.0")
    assert [row[VERDICT].split(" ")[0] for row in rows] == ["inside", "outside:", "inside"]


def test_a_range_ends_where_values_do():
    scores = {"a": {EXACT: [0.97, 0.99]}, "b": {EXACT: [0.01, 0.05]}}
    figures = [Published("x", 0.5, arm, EXACT) for arm in scores]
    assert [row[MORE] for row in published(*figures, results=make_results(scores))] == [
        "76.0 to 100.0",
        "0.0 to 47.0",
    ]


def test_another_epoch_can_be_asked_for_but_not_one_that_was_never_evaluated():
    (row,) = published(Published("x", 0.0, "forward", EXACT, epoch=1))
    assert row[OURS] == "0.0 % [0.0, 0.0]"
    assert (row[SETTING], row[VERDICT]) == ("epoch 1", "inside the seed spread")
    results = make_results()
    results["records"] = [r | {"epoch": 5 * r["epoch"]} for r in results["records"]]
    with pytest.raises(ValueError, match=r"Seeds \[0, 1, 2\].*at epoch 7; there are epochs"):
        published(Published("x", 0.1, "forward", EXACT, epoch=7), results=results)


def test_a_metric_that_nobody_measured_is_refused():
    with pytest.raises(ValueError, match="No records of arm 'forward', metric 'bleu'"):
        published(Published("x", 0.1, "forward", "bleu"))


# --- predictions ------------------------------------------------------------------------------


INSIDE, TOUCHING, ABOVE = (-0.019, 0.019), (-0.019, 0.02), (0.021, 0.05)


@pytest.mark.parametrize(
    ("expect", "margin", "ci95", "ci90", "verdict"),
    [
        ("equal", 0.02, (-0.05, 0.05), INSIDE, "held"),
        ("equal", 0.02, INSIDE, INSIDE, "held"),
        ("equal", 0.02, None, INSIDE, "held"),  # five seeds
        ("equal", 0.02, TOUCHING, TOUCHING, "open"),  # a test does not reject its interval's end
        ("equal", 0.02, (0.02, 0.05), (0.03, 0.04), "open"),
        ("equal", 0.02, (0.01, 0.06), ABOVE, "open"),
        ("equal", 0.02, ABOVE, (0.03, 0.04), "failed"),
        ("equal", 0.02, (-0.05, -0.021), (-0.04, -0.03), "failed"),
        ("equal", 0.02, (0.52 - 0.5,) * 2, (0.52 - 0.5,) * 2, "open"),  # .02 but for the last digit
        ("equal", 0.02, None, None, "open"),
        ("greater", 0.0, (0.001, 0.5), None, "held"),
        ("greater", 0.0, (0.0, 0.5), None, "open"),
        ("greater", 0.0, (-0.5, 0.0), None, "open"),
        ("greater", 0.0, (-0.5, -0.001), None, "failed"),
        ("less", 0.0, (-0.5, -0.001), None, "held"),
        ("less", 0.0, (-0.5, 0.0), None, "open"),
        ("less", 0.0, (0.001, 0.5), None, "failed"),
        ("greater", 0.0, None, None, "open"),
    ],
)
def test_verdicts_at_their_boundaries(expect, margin, ci95, ci90, verdict):
    assert verdict_of(expect, margin, ci95, ci90) == verdict
    if ci95 and ci90:
        mirrored: Expect = {"equal": "equal", "greater": "less", "less": "greater"}[expect]
        turned = [(-high, -low) for low, high in (ci95, ci90)]
        assert verdict_of(mirrored, margin, *turned) == verdict


@settings(max_examples=60)
@given(st.lists(st.integers(-9, 9), min_size=5, max_size=9), st.integers(1, 9))
def test_an_equality_is_two_one_sided_tests(hundredths, margin):
    results = make_results(
        {"b": {EXACT: [0.5] * len(hundredths)}, "a": {EXACT: [0.5 + x / 100 for x in hundredths]}}
    )
    (judged,) = judge(results, [Prediction("same", "a", "b", EXACT, "equal", margin / 100)])
    flips = np.array([*itertools.product((1, -1), repeat=len(hundredths))])

    def rejects(x: np.ndarray) -> bool:
        """Whether differences are below 0: few flips have a sum as low."""
        return np.mean(flips @ x <= x.sum()) <= 0.05

    x = np.array(hundredths)  # whole numbers: no rounding
    assert (judged.verdict == "held") == (rejects(x - margin) and rejects(-x - margin))
    (judged,) = judge(results, [Prediction("more", "a", "b", EXACT, "greater")])
    p = np.mean(abs(flips @ x) >= abs(x.sum()))
    assert judged.verdict == ("open" if p > 0.05 else "held" if x.sum() > 0 else "failed")


def seeded(n: int, **above: float) -> dict[str, Any]:
    """Results of n seeds of the arm "low", and of others above it by so much in every seed."""
    low = [0.1 + 0.01 * seed for seed in range(n)]
    arms = {"low": 0.0, **above}
    return make_results({arm: {EXACT: [x + by for x in low]} for arm, by in arms.items()})


def directed(expect: Expect, *arms: str) -> list[Prediction]:
    return [Prediction(arm, arm, "low", EXACT, expect) for arm in arms]


def test_a_judgement_holds_the_numbers_of_the_paired_comparison():
    (judged,) = judge(seeded(6, up=0.2), directed("greater", "up"))
    assert judged.comparison == paired(seeded(6, up=0.2), "up", "low", EXACT)
    assert judged[1:] == (2 / 2**6, "held", "held: above 0")
    (failed,) = judge(seeded(6, up=0.2), directed("less", "up"))
    assert failed[1:] == (2 / 2**6, "failed", "failed: not below 0")


def test_a_direction_needs_a_p_that_stands_all_the_tests_of_its_table():
    arms = [f"arm {i}" for i in range(8)]
    results = seeded(9, **dict.fromkeys(arms, 0.1))
    for tests, verdict in ((1, "held"), (8, "held")):  # 8 x 2 / 2^9 = .031
        judged = judge(results, directed("greater", *arms[:tests]))
        assert {j.p for j in judged} == {tests * 2 / 2**9}
        assert {j.verdict for j in judged} == {verdict}
    results = seeded(8, **dict.fromkeys(arms, 0.1))
    judged = judge(results, directed("greater", *arms))  # 8 x 2 / 2^8 = .063
    assert {j.sentence for j in judged} == {"open: too few seeds"}
    equals = [Prediction(arm, arm, "low", EXACT, "equal", 0.2) for arm in arms]
    judged = judge(results, [*directed("greater", *arms[:6]), *equals])  # which are not counted
    assert [j.p for j in judged] == [6 * 2 / 2**8] * 6 + [None] * 8
    assert {j.verdict for j in judged} == {"held"}


def test_a_p_too_large_is_open_with_enough_seeds():
    results = seeded(6, up=0.2)
    for record in results["records"]:
        if (record["arm"], record["seed"]) == ("up", 0):
            record["value"] -= 0.25  # one of six seeds the other way
    (judged,) = judge(results, directed("greater", "up"))
    assert judged.p > 0.05
    assert judged[2:] == ("open", "open: above 0 or not")


@pytest.mark.parametrize(
    ("n", "verdicts"), [(4, ["open"] * 2), (5, ["open", "held"]), (6, ["held"] * 2)]
)
def test_a_direction_takes_six_seeds_and_an_equality_five(n, verdicts):
    same = Prediction("no matter", "up", "low", EXACT, "equal", 0.3)
    both = judge(seeded(n, up=0.2), [*directed("greater", "up"), same])
    assert [j.verdict for j in both] == verdicts
    assert {j.sentence for j in both if j.verdict == "open"} <= {"open: too few seeds"}


def test_arms_are_paired_by_the_seeds_they_share():
    results = make_results()
    results["records"] = [r for r in results["records"] if (r["arm"], r["seed"]) != ("reversed", 0)]
    c = paired(results, "reversed", "forward", EXACT)
    assert c == compare("reversed", "forward", EXACT, [0.61, 0.55], [0.12, 0.11])
    results["records"] = [
        r for r in results["records"] if (r["arm"] == "reversed") != (r["seed"] == 0)
    ]
    with pytest.raises(ValueError, match="at least one number, but 'reversed'"):
        paired(results, "reversed", "forward", EXACT)


@pytest.mark.parametrize("margin", [-0.01, 0.0, float("nan"), float("inf")])
def test_a_margin_that_means_nothing_is_refused(margin):
    with pytest.raises(ValueError, match=r"A margin is 0 or, .* but 'claim'"):
        Prediction("claim", "a", "b", EXACT, "equal", margin)


def test_a_direction_has_no_margin():
    with pytest.raises(ValueError, match=r"A margin is 0 or, .* but 'claim'"):
        Prediction("claim", "a", "b", EXACT, "less", 0.1)


def test_predictions_and_what_happened():
    results = seeded(7, up=0.2, near=0.001)
    claims = [
        *directed("greater", "up"),
        *directed("less", "near"),
        Prediction("no matter", "near", "low", EXACT, "equal", 0.02),
        Prediction("no matter", "up", "low", EXACT, "equal", 0.02),
    ]
    table = prediction_table(results, claims)
    assert table.title == "What was predicted: exact match, free-running"
    assert table.rows[0] == (
        "up",
        "up, 33.0 %",
        "low, 13.0 %",
        "+20.0 [+20.0, +20.0]",
        "7",
        "0.016",
        "0.031",
        "held: above 0",
    )
    assert [row[-2:] for row in table.rows[1:]] == [
        ("0.031", "failed: not below 0"),
        ("–", "held: within ±2.0, 90 % [+0.1, +0.1]"),
        ("–", "failed: not within ±2.0, 90 % [+20.0, +20.0]"),
    ]
    assert "after Holm correction for the 2 directions" in table.note
    assert "[95 % interval: the shifts that the sign-flip test does not reject]" in table.note
    assert "two one-sided sign-flip tests" in table.note
    assert "one-sided" not in prediction_table(results, claims[:2]).note
    few = prediction_table(seeded(3, up=0.2), claims[:1])
    assert few.rows[0][3] == "+20.0"
    assert "smallest possible p is 0.25" in few.note
    assert "[95 %" not in few.note


def test_predictions_of_several_metrics_name_them():
    claims = [
        Prediction("better", "reversed", "forward", EXACT, "greater"),
        Prediction("better", "reversed", "forward", LOSS, "less"),
    ]
    table = prediction_table(make_results(), claims)
    assert [row[0] for row in table.rows] == [
        "better: exact match, free-running",
        "better: loss, nats per token",
    ]
    assert table.rows[1][1:3] == ("reversed, 0.1500", "forward, 0.9500")


def test_one_seed_leaves_a_prediction_open():
    results = make_results({"a": {EXACT: [0.9]}, "b": {EXACT: [0.1]}})
    (row,) = prediction_table(results, [Prediction("up", "a", "b", EXACT, "greater")]).rows
    assert row[3:] == ("+80.0", "1", "–", "–", "open: too few seeds")


def test_nothing_predicted_is_an_empty_table():
    assert prediction_table(make_results(), []).rows == ()


# --- time to a threshold ----------------------------------------------------------------------


def test_the_first_evaluated_epoch_counts():
    results = growing({"a": [20, None, 5]})
    reached = {0: 20, 1: None, 2: 5}
    assert epochs_to(results, "a", EXACT, 0.5) == reached  # reached from below: exactly is enough
    assert epochs_to(results, "a", LOSS, 0.5) == reached  # ... and a loss from above
    assert epochs_to(results, "a", EXACT, 0.4) == {0: 5, 1: 5, 2: 5}
    assert set(epochs_to(results, "a", EXACT, 0.51).values()) == {None}


def test_a_curve_that_falls_again_has_reached_it():
    results = growing({"a": [5]})
    for record in results["records"]:
        record["value"] = 0.6 if record["epoch"] == 10 else 0.1
    assert epochs_to(results, "a", EXACT, 0.5) == {0: 10}


def test_threshold_table():
    results = growing(
        {
            "all": [10, 30, 20],
            "most": [10, None, 20],
            "half": [40, None, None, 20],
            "few": [None, 15, None],
            "none": [None, None],
            "one": [25],
        }
    )
    arms = ["all", "most", "half", "few", "none", "one"]
    table = threshold_table(results, EXACT, [0.5], arms)
    assert table.title == "Epochs to a threshold: exact match, free-running, dev set"
    assert table.rows == (
        ("all", "50.0 %", "3", "3", "20 [10 to 30]"),
        ("most", "50.0 %", "3", "2", "20 [10 to never]"),
        ("half", "50.0 %", "4", "2", "40 [20 to never]"),
        ("few", "50.0 %", "3", "1", "– [15 to never]"),
        ("none", "50.0 %", "2", "0", "never"),
        ("one", "50.0 %", "1", "1", "25"),
    )
    several = threshold_table(results, LOSS, [1.0, 0.5], ["all", "one"])
    assert [row[:2] for row in several.rows] == [
        ("all", "1.0000"),
        ("one", "1.0000"),
        ("all", "0.5000"),
        ("one", "0.5000"),
    ]


@given(st.lists(st.none() | st.integers(1, 10).map(lambda k: 5 * k), min_size=2, max_size=9))
def test_half_the_seeds_have_it_by_the_median_and_not_before(firsts):
    ((_, _, n, reached, cell),) = threshold_table(growing({"a": firsts}), EXACT, [0.5], ["a"]).rows
    assert (int(n), int(reached)) == (len(firsts), sum(first is not None for first in firsts))
    share = lambda epoch: sum(f is not None and f <= epoch for f in firsts) / len(firsts)
    median = cell.split(" ")[0]
    if median in ("–", "never"):
        assert share(50) < 0.5
        assert (median == "never") == (share(50) == 0)
    else:
        assert share(int(median)) >= 0.5 > share(int(median) - 5)
