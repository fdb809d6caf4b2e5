"""Pictures of many arms: all they were given is in them, on the page, and nothing covers a name."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from fake_results import make_results
from test_plots import has, pixels

from s2sjax.canvas import DPI, WIDTH, seed_count, wrapped
from s2sjax.pictures import Contrast, Heat, forest, heat_maps, scores_by_arm, share_by, step_curves
from s2sjax.report import difference, score
from s2sjax.results import values
from s2sjax.verdicts import paired

EXACT = "free_running/exact_match"
ORDERS = ("forward", "reversed", "digits reversed, operands in place", "operands swapped", "dealt")
MODELS = ("plain LSTM", "GRU", "two layers, dropout", "attention", "Keras weights", "$clipped_1$")
GROUPS = {model: [f"{model}: {order}" for order in ORDERS] for model in MODELS}
VERDICTS = ("held", "failed: not within ±2.0", "open: above +5.0 or not", "")


def many(seeds: int = 10) -> dict[str, Any]:
    """Test scores of thirty arms."""
    rng = np.random.default_rng(0)
    means = {arm: rng.uniform(0.05, 0.95) for names in GROUPS.values() for arm in names}
    scores = {a: np.clip(m + rng.normal(0, 0.04, seeds), 0, 1) for a, m in means.items()}
    return make_results(
        {a: {EXACT: x.tolist(), "loss": (2 - 2 * x).tolist()} for a, x in scores.items()}
    )


def contrasts() -> list[Contrast]:
    """Twenty-four of them, in six groups."""
    return [
        Contrast(f"{order} − forward", arm, names[0], VERDICTS[i % 4], model)
        for model, names in GROUPS.items()
        for i, (order, arm) in enumerate(zip(ORDERS[1:], names[1:], strict=True))
    ]


def heat(outputs: int, inputs: int, scale: float = 1.0) -> Heat:
    """Bright on the diagonal."""
    o, i = np.ogrid[:outputs, :inputs]
    matrix = scale * np.exp(-np.abs(o / outputs - i / inputs))
    return Heat(matrix, [*"1234567"[:outputs]], [*"123+456 789+"[:inputs]])


def draw_forest(seeds: int, path: Path) -> None:
    forest(many(seeds), contrasts(), EXACT, path)


def draw_scores(seeds: int, path: Path) -> None:
    floors = {"source never read": 0.001, "top two digits known": 0.1, "carry ignored": 0.93}
    scores_by_arm(many(seeds), EXACT, path, GROUPS, floors)


def draw_heat(seeds: int, path: Path) -> None:
    panels = {
        arm: {f"epoch {e}": heat(4 + k % 2, 7 + k, 0.01 + e / 100) for e in (0, 10, 50, 100, 200)}
        for k, arm in enumerate(ORDERS)
    }
    note, label = f"mean over {seeds} seeds, 500 questions", "norm, nats per unit of embedding"
    heat_maps(panels, path, "norm of d logit_t / d input_s", label, note, log=True)


def draw_shares(seeds: int, path: Path) -> None:
    rng = np.random.default_rng(0)
    shares = {
        arm: {c: rng.uniform(0.1, 0.2, seeds) + 0.15 * (5 - c) for c in range(5)} for arm in ORDERS
    }
    groups = {arm: {c: x.tolist() for c, x in by.items()} for arm, by in shares.items()}
    counts = {0: 1_234, 1: 1_980, 2: 1_200, 3: 580, 4: 6}
    share_by(groups, counts, path, "exact match by chain of carries, test set", "longest chain")


def draw_steps(seeds: int, path: Path) -> None:
    epochs = {
        arm: {seed: 20 * k + 5 * seed if seed + k < 10 else None for seed in range(seeds)}
        for k, arm in enumerate(ORDERS)
    }
    step_curves(epochs, 200, path, "exact match of 90 % reached, dev set")


DRAWINGS = [draw_forest, draw_scores, draw_heat, draw_shares, draw_steps]


class Drawn(NamedTuple):
    """A text that was drawn, and where: x0, y0, x1, y1 in pixels from the lower left."""

    text: str
    box: tuple[float, float, float, float]


@pytest.fixture
def drawn(monkeypatch) -> list[Drawn]:
    """Every text that is drawn from now on."""
    from matplotlib.text import Text

    texts: list[Drawn] = []
    draw = Text.draw

    def recording(self: Text, renderer: Any) -> None:
        draw(self, renderer)
        if self.get_visible() and self.get_text().strip():
            box = Text.get_window_extent(self, renderer)
            texts.append(Drawn(self.get_text(), box.extents.tolist()))

    monkeypatch.setattr(Text, "draw", recording)
    return texts


def covers(a: Drawn, b: Drawn, slack: float = 2) -> bool:
    """Whether two texts lie over one another, by more than a box is larger than its letters."""
    (ax, ay, aX, aY), (bx, by, bX, bY) = a.box, b.box
    return min(aX, bX) - max(ax, bx) > slack and min(aY, bY) - max(ay, by) > slack


def said(drawn: list[Drawn]) -> list[str]:
    """The texts, each in one line."""
    return [text.replace("\n", " ") for text, _ in drawn]


@pytest.mark.parametrize("seeds", [1, 10])
@pytest.mark.parametrize("draw", DRAWINGS)
def test_texts_are_on_the_page_and_clear_of_one_another(tmp_path, drawn, draw, seeds):
    draw(seeds, tmp_path / "a.png")
    image = pixels(tmp_path / "a.png")
    assert image.shape[1] == WIDTH * DPI
    assert 500 < image.shape[0] < 2600
    edge = np.concatenate([image[:8].reshape(-1, 3), image[-8:].reshape(-1, 3)])
    assert (edge == 1).all()
    assert (image[:, :8] == 1).all()
    assert (image[:, -8:] == 1).all()
    assert len(drawn) > 10
    for i, a in enumerate(drawn):
        assert min(a.box[:2]) >= 8, a
        assert a.box[2] <= WIDTH * DPI - 8, a
        assert a.box[3] <= image.shape[0] - 8, a
        assert [b for b in drawn[i + 1 :] if covers(a, b)] == [], a


@pytest.mark.parametrize("draw", DRAWINGS)
def test_the_same_numbers_give_the_same_bytes_and_others_do_not(tmp_path, draw):
    first, second, other = (tmp_path / f"{name}.png" for name in "abc")
    for path, seeds in ((first, 3), (second, 3), (other, 4)):
        draw(seeds, path)
    assert first.read_bytes() == second.read_bytes() != other.read_bytes()


# --- rows -------------------------------------------------------------------------------------


def test_a_forest_tells_every_row(tmp_path, drawn):
    results, rows = many(), contrasts()
    forest(results, rows, EXACT, tmp_path / "a.png")
    texts = said(drawn)
    assert texts.count("10 seeds: dots; their mean, 95 % interval: bars") == 1
    assert {*GROUPS} < {*texts}
    for row in rows:
        c = paired(results, row.a, row.b, EXACT)
        assert texts.count(difference(c.mean_difference, c.ci95, EXACT)) == 1
    assert [texts.count(f"{order} − forward") for order in ORDERS[1:]] == [6] * 4
    assert [texts.count(v) for v in VERDICTS[:3]] == [6] * 3
    shown = pixels(tmp_path / "a.png")
    assert all(has(shown, colour) for colour in ("#0072B2", "#D55E00", "#666666"))


def test_rows_have_names_numbers_and_dots_at_the_same_height(tmp_path, drawn):
    results = make_results({"a": {EXACT: [0.3, 0.4]}, "b": {EXACT: [0.1, 0.1]}})
    rows = [Contrast("a − b", "a", "b"), Contrast("b − a", "b", "a", "failed")]
    forest(results, rows, EXACT, tmp_path / "a.png")
    boxes = dict(drawn)
    up, down = (difference(s * 0.25, sorted((s * 0.2, s * 0.3)), EXACT) for s in (1, -1))
    middle = lambda text: (boxes[text][1] + boxes[text][3]) / 2
    assert middle("a − b") == pytest.approx(middle(up), abs=4)
    assert middle("b − a") == pytest.approx(middle(down), abs=4)
    assert boxes["a − b"][2] < boxes[up][0]  # names on the left, numbers on the right
    image = pixels(tmp_path / "a.png")
    orange = (np.abs(image - np.array([0xD5, 0x5E, 0x00]) / 255).max(axis=-1) < 1e-3).nonzero()
    axes = orange[1] < boxes[up][0]  # pixels of the bar, not of the numbers
    height = image.shape[0] - orange[0][axes]
    assert abs(height.mean() - middle("b − a")) < 0.15 * DPI
    assert {"0", "−20", "+20"} <= boxes.keys()
    tinted = ((image[..., 0] - image[..., 2] > 0.2).nonzero()[1]).astype(float)  # dots too
    tinted = tinted[tinted < boxes[up][0]]
    assert boxes["−20"][0] - 200 < tinted.min() < tinted.max() < boxes["−20"][2]


def test_a_row_a_seed_is_a_row_all_the_same(tmp_path, drawn):
    results = make_results({"a": {EXACT: [0.3]}, "b": {EXACT: [0.1]}})
    forest(results, [Contrast("a − b", "a", "b")], EXACT, tmp_path / "a.png")
    assert {"one seed", "+20.0"} <= {*said(drawn)}


def test_a_forest_of_losses_is_in_nats(tmp_path, drawn):
    forest(many(), contrasts()[:2], "loss", tmp_path / "a.png")
    assert "difference, nats per token" in said(drawn)
    assert not any("%" in text for text in said(drawn) if "interval" not in text)


def test_seeds_are_counted_row_by_row(tmp_path, drawn):
    results = many(5)
    lost = GROUPS["GRU"][1]
    results["records"] = [
        r for r in results["records"] if r["arm"] != lost or r["seed"] not in (1, 3)
    ]
    forest(results, contrasts(), EXACT, tmp_path / "a.png")
    assert "3 to 5 seeds: dots; their mean, 95 % interval: bars" in said(drawn)


def test_scores_by_arm_tell_every_arm_and_floor(tmp_path, drawn):
    draw_scores(10, tmp_path / "a.png")
    results, texts = many(), said(drawn)
    for names in GROUPS.values():
        for arm in names:
            assert arm in texts
            assert score(values(results, arm, EXACT), EXACT) in texts
    heights = {text: box[1] for text, box in drawn}
    floors = ("source never read  0.1 %", "top two digits known  10.0 %", "carry ignored  93.0 %")
    left, middle, right = (heights[floor] for floor in floors)
    assert left > middle > right > heights["plain LSTM"]
    image = pixels(tmp_path / "a.png")
    assert all(has(image, colour) for colour in ("#0072B2", "#D55E00", "#009E73", "#56B4E9"))


@pytest.mark.parametrize(("floor", "beside"), [(0.1, "right"), (0.98, "left")])
def test_floors_are_named_beside_their_lines_where_there_is_room(tmp_path, drawn, floor, beside):
    results = make_results({"a": {EXACT: [0.03, 0.05]}, "b": {EXACT: [0.6, 0.99]}})
    name = "the top two digits of both operands known"
    scores_by_arm(results, EXACT, tmp_path / "a.png", {"": ["a", "b"]}, {name: floor})
    (box,) = (box for text, box in drawn if text.startswith(name))
    image = pixels(tmp_path / "a.png")
    grey = (np.abs(image - 0x66 / 255).max(axis=-1) < 1e-3)[120:-70]  # neither words nor ticks
    line = grey.sum(axis=0).argmax()
    assert 0 < (box[0] - line if beside == "right" else line - box[2]) < 20
    assert box[0] > 8
    assert box[2] < WIDTH * DPI - 8


# --- shares, steps ----------------------------------------------------------------------------


def test_shares_are_told_with_the_questions_they_are_of(tmp_path, drawn):
    draw_shares(10, tmp_path / "a.png")
    texts = said(drawn)
    assert {"0 1,234", "3 580", "4 6", "10 seeds: dots; their means: bars"} < {*texts}
    assert {*ORDERS} < {*texts}


def test_an_arm_may_lack_categories_but_not_have_others(tmp_path, drawn):
    groups = {"a": {"1+1": [0.5, 0.6], "2+1": [0.5]}, "b": {"2+1": [0.1]}}
    share_by(groups, {"1+1": 10, "2+1": 20}, tmp_path / "a.png", "shares", "digits")
    assert "1 to 2 seeds: dots; their means: bars" in said(drawn)
    with pytest.raises(ValueError, match=r"'a' has categories \['1\+1', '2\+1'\], counted are"):
        share_by(groups, {"1+1": 10}, tmp_path / "b.png", "shares", "digits")
    assert not (tmp_path / "b.png").exists()


def test_arms_that_reach_a_threshold_are_counted(tmp_path, drawn):
    epochs = {"fast": {0: 5, 1: 10}, "slow": {0: None, 1: 50}, "never": {0: None}}
    step_curves(epochs, 50, tmp_path / "a.png", "90 % reached")
    assert {"fast  2 of 2", "slow  1 of 2", "never  0 of 1"} < {*said(drawn)}
    assert "share of an arm's seeds, 1 to 2 seeds an arm: a step a seed" in said(drawn)
    heights = [box[1] for name in ("fast", "slow", "never") for t, box in drawn if name in t]
    assert sorted(heights, reverse=True) == heights


def test_steps_rise_at_their_epochs(tmp_path):
    at = {}
    for epoch in (10, 40):
        step_curves({"a": {0: epoch}}, 50, tmp_path / "a.png", "reached")
        image = pixels(tmp_path / "a.png")
        blue = (np.abs(image - np.array([0x00, 0x72, 0xB2]) / 255).max(axis=-1) < 1e-3)[:, :900]
        at[epoch] = blue.sum(axis=0).argmax()  # the upright line
    start, width = (4 * at[10] - at[40]) / 3, at[40] - at[10]
    assert start == pytest.approx(0.8 * DPI, abs=3)  # epoch 0, at the left of the axes
    assert 300 < width < 900


def test_coinciding_arms_are_both_seen(tmp_path):
    epochs = {arm: {0: 10, 1: 20} for arm in "ab"}
    step_curves(epochs, 50, tmp_path / "a.png", "reached")
    middle = pixels(tmp_path / "a.png")[:, 600:640]  # where both are at the top
    assert has(middle, "#0072B2")
    assert has(middle, "#D55E00")


def test_more_arms_than_colours_still_look_different(tmp_path):
    halves = {f"arm {i}": {0: 5, 1: None} for i in range(1, 7)}
    epochs = {"arm 0": {0: 5}, **halves, "arm 7": {0: None}}  # 0 and 7 are blue
    step_curves(epochs, 50, tmp_path / "a.png", "reached")
    image = pixels(tmp_path / "a.png")[:, 250:900]
    blue = (np.abs(image - np.array([0x00, 0x72, 0xB2]) / 255).max(axis=-1) < 1e-3).mean(axis=1)
    upper, lower = blue[: len(blue) // 2], blue[len(blue) // 2 :]
    assert upper.max() == 1
    assert 0.5 < lower.max() < 0.9  # dashed


# --- heat maps --------------------------------------------------------------------------------


def test_heat_maps_tell_rows_columns_and_characters(tmp_path, drawn):
    panels = {
        "forward": {"epoch 1": heat(3, 8), "epoch 9": heat(3, 8, 5.0)},
        "swapped": {"epoch 9": heat(4, 5)},
    }
    heat_maps(panels, tmp_path / "a.png", "norms", "norm", "mean over 10 seeds")
    texts = said(drawn)
    assert {"forward", "swapped", "norm", "mean over 10 seeds", "Norms"} < {*texts}
    assert (texts.count("epoch 1"), texts.count("epoch 9")) == (1, 1)
    assert (texts.count("+"), texts.count("␣")) == (3, 2)  # five inputs end at "4"
    assert texts.count("output") == 2


def test_all_heat_maps_share_one_scale(tmp_path):
    from matplotlib import colormaps

    low, high = Heat(np.full((2, 2), 1.0), [*"ab"], [*"cd"]), np.full((2, 2), 4.0)
    top = Heat(high, [*"ab"], [*"cd"])
    for log in (False, True):
        heat_maps({"a": {"x": low, "y": top}}, tmp_path / "a.png", "t", "l", "n", log=log)
        image = pixels(tmp_path / "a.png")[:, :500]  # without the colour bar
        expected = {False: (0.25, 1.0), True: (np.log10(1 / 0.4), 1.0)}[log]
        for place in expected:
            rgb = np.array(colormaps["viridis"](min(int(place * 256), 255))[:3])
            assert (np.abs(image - rgb).max(axis=-1) < 3e-3).sum() > 1_000


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize("value", [0.0, 1e-12, 3.0])
def test_flat_heat_maps_can_be_drawn(tmp_path, value, log):
    flat = Heat(np.full((1, 1), value), ["a"], ["<bos>"])
    heat_maps({"a": {"x": flat}}, tmp_path / "a.png", "t", "l", "n", log=log)
    assert pixels(tmp_path / "a.png").shape[1] == WIDTH * DPI


def test_damaged_heat_is_refused():
    with pytest.raises(ValueError, match=r"is \(1, 2\) characters, its matrix \(2, 1\)"):
        Heat(np.ones((2, 1)), ["a"], ["b", "c"])
    for bad in (-1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="finite numbers from 0 on"):
            Heat(np.array([[bad]]), ["a"], ["b"])


# --- what cannot be drawn ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda p: forest(many(1), [], EXACT, p), "no row to draw"),
        (lambda p: forest(many(1), contrasts(), "bleu", p), "No records of arm"),
        (lambda p: scores_by_arm(many(1), EXACT, p, {"g": ["later"]}), "No records of arm 'later'"),
        (lambda p: scores_by_arm(many(1), EXACT, p, {}), "no row to draw"),
        (lambda p: heat_maps({"a": {}}, p, "t", "l", "n"), "no panel to draw"),
        (lambda p: share_by({}, {1: 2}, p, "t", "x"), "no arm to draw"),
        (lambda p: share_by({"a": {}}, {1: 2}, p, "t", "x"), "'a' has categories"),
        (lambda p: step_curves({}, 5, p, "t"), "no arm to draw"),
        (lambda p: step_curves({"a": {}}, 5, p, "t"), "'a' has no seed"),
        (lambda p: step_curves({"a": {0: 6}}, 5, p, "t"), "or one beyond epoch 5"),
    ],
)
def test_what_cannot_be_drawn_is_refused_and_nothing_is_written(tmp_path, draw, message):
    with pytest.raises(ValueError, match=message):
        draw(tmp_path / "a.png")
    assert not any(tmp_path.iterdir())


# --- words ------------------------------------------------------------------------------------


def test_seeds_are_counted_in_words():
    assert seed_count([1, 1]) == "one seed"
    assert seed_count([3]) == "3 seeds"
    assert seed_count([10, 3, 5]) == "3 to 10 seeds"
    assert seed_count([1, 2]) == "1 to 2 seeds"


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("", ""),
        ("forward", "forward"),
        ("one two three", "one two\nthree"),
        ("aa bb cc dd ee ff", "aa bb cc\ndd ee ff"),  # not "aa bb cc dd", "ee ff"
        ("unbreakable_name", "unbreakable_\nname"),
    ],
)
def test_names_are_broken_into_lines_of_about_the_same_length(name, lines):
    assert wrapped(name, 12 if name != "one two three" else 9) == lines


def test_a_long_title_is_drawn_smaller_not_cut_off(tmp_path, drawn):
    step_curves({"a": {0: 1}}, 5, tmp_path / "a.png", "share of the seeds " * 5)
    title = next(d for d in drawn if d.text.startswith("Share"))
    assert title.box[2] <= WIDTH * DPI - 8
