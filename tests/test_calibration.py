"""Rates of rejection: where they are known, and each method against one written by others."""

import calibration
import numpy as np
import pytest
import scipy.stats
from calibration import SWAPPED
from fake_results import EXACT, make_results

from s2sjax.analysis.calibration import (
    METHODS,
    OURS,
    bca_rejects,
    draw_rates,
    draw_studies,
    rejection,
    sign_flip_ps,
    student_rejects,
    until_decided,
)
from s2sjax.report.stats import sign_flip_p

STUDIES = 2_000
NORMAL = np.random.default_rng(0).normal(size=100_000)
T = "Student's t"


def near(rate: float, errors: float = 4) -> object:
    """A rate of studies, within so many standard errors."""
    return pytest.approx(rate, abs=errors * (rate * (1 - rate) / STUDIES) ** 0.5)


@pytest.mark.parametrize("n", [2, 5, 10, 13, 21, 40])
def test_sign_flip_ps_are_those_of_the_reports(n):
    x = np.round(np.random.default_rng(n).normal(0.3, 1, (30, n)), 1)  # rounded: with ties
    np.testing.assert_allclose(sign_flip_ps(x), [sign_flip_p(row) for row in x], rtol=1e-12)


def test_where_the_report_enumerates_and_we_draw_they_are_close():
    x = np.random.default_rng(0).normal(0.5, 1, (10, 16))
    np.testing.assert_allclose(sign_flip_ps(x), [sign_flip_p(row) for row in x], atol=0.02)


def test_intervals_end_where_scipys_do():
    for row in np.random.default_rng(1).gamma(2, size=(5, 25)):
        bca = scipy.stats.bootstrap((row,), np.mean, method="BCa", rng=np.random.default_rng(2))
        t = scipy.stats.ttest_1samp(row, 0).confidence_interval()
        for rejects, (low, high), off in (
            (student_rejects, t, 1e-9),
            (bca_rejects, bca.confidence_interval, 0.1),
        ):
            step = off * (high - low)
            shifts = np.array([low - step, low + step, high - step, high + step])
            assert rejects(row - shifts[:, None]).tolist() == [True, False, False, True]


def test_normal_differences_give_the_rates_that_are_known():
    sizes = (5, 10, 20, 40)
    null = rejection(NORMAL - NORMAL.mean(), sizes, STUDIES)
    assert null[T] == [near(0.05)] * 4
    assert null[OURS] == [None, near(25 * 2 / 2**10), near(0.05), near(0.05)]
    assert null["BCa bootstrap"][0] > 0.1  # far too short with five
    found = rejection(NORMAL - NORMAL.mean() + 0.7 * NORMAL.std(), sizes, STUDIES)
    for n, rate in zip(sizes, found[T], strict=True):
        ends, beyond = (
            scipy.stats.t.ppf((0.025, 0.975), n - 1),
            scipy.stats.nct(n - 1, 0.7 * n**0.5),
        )
        assert rate == near(beyond.cdf(ends[0]) + beyond.sf(ends[1]))


def test_studies_are_drawn_with_or_without_seeds_twice():
    pool = np.arange(50.0)
    once, more = (draw_studies(pool, 40, 300, replace=replace) for replace in (False, True))
    assert all(len({*row}) == 40 for row in once)
    assert max(len({*row}) for row in more) < 40
    np.testing.assert_array_equal(once, draw_studies(pool, 40, 300, replace=False))
    assert set(rejection(pool, [60], 5, replace=False)) == {*METHODS}
    assert rejection(pool, [60], 5, replace=False)[T] == [None]


def test_differences_that_are_all_equal_are_found_or_not():
    for value, share in ((0.0, 0.0), (0.1, 1.0)):
        rates = rejection(np.full(30, value), [10], 5)
        assert rates == {method: [share] for method in METHODS}


def test_looking_often_costs_false_alarms_unless_the_level_is_shared():
    x, looks = draw_studies(NORMAL - NORMAL.mean(), 80, STUDIES), (10, 20, 40, 80)
    assert until_decided(x, looks[-1:], 0.05) == (near(0.05), 80)
    often, used = until_decided(x, looks, 0.05)
    assert often == near(0.125, 6)
    assert 10 < used < 80
    assert 0.02 < until_decided(x, looks, 0.05 / 4)[0] <= 0.05
    assert until_decided(x + 9, looks, 0.05 / 4) == (1, 10)


def test_a_picture_leaves_out_what_has_no_rate(tmp_path):
    panels = {"alarms": (0.05, {OURS: [None, 0.04], T: [0.06, 0.05]})}
    for name in ("a.png", "b.png"):
        draw_rates(panels, (5, 10), tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_the_tables_of_a_pool(monkeypatch):
    monkeypatch.setattr(calibration, "STUDIES", 200)
    rng, arms = np.random.default_rng(0), {"forward": 0.4, "reversed": 0.6, SWAPPED: 0.4}
    scores = {arm: {EXACT: rng.normal(mean, 0.1, 12).tolist()} for arm, mean in arms.items()}
    results = make_results(scores) | {"config": {"arms": {}}}
    results["records"] += [r | {"split": "dev"} for r in results["records"]]
    assert calibration.null(results).mean() == pytest.approx(0, abs=1e-15)
    tables = calibration.EXPERIMENT.tables(results)
    assert {"rates", "power", "looks"} < {*tables}
    assert "seeds" not in tables  # hundreds
    rows = tables["rates"].rows
    assert [row[1] for row in rows] == [*METHODS] * 3
    assert [row[2] for row in rows if row[1] == OURS] == ["–"] * 3  # five seeds
    assert [row[4:] for row in rows[3:6]] == [("–", "–")] * 3  # 20 of 12 cannot be drawn
    powers = tables["power"].rows
    assert [row[1:3] for row in powers[:3]] == [("+0.0", "0.00")] * 3  # epoch 1
    assert [float(row[2]) for row in powers[6::3]] == pytest.approx([0.5, 1.0], rel=0.03)
    one, often, shared = tables["looks"].rows
    assert float(one[1]) <= float(often[1]) >= float(shared[1])
