"""Pictures: all they were given is in them, on the page, and no text covers another."""

import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from fake_results import make_results

from s2sjax.report.canvas import DPI, WIDTH, seed_note
from s2sjax.report.claims import paired
from s2sjax.report.plots import (
    Contrast,
    Heat,
    accuracy_by_position,
    forest,
    heat_maps,
    learning_curves,
    scores_by_arm,
    shares_by_category,
    step_curves,
)
from s2sjax.report.results import values
from s2sjax.report.tables import difference, score

EXACT, BLEU = "free_running/exact_match", "BLEU"
ORDERS = ("forward", "reversed", "digits reversed, operands in place", "operands swapped", "dealt")
MODELS = ("plain LSTM", "GRU", "two layers, dropout", "attention", "Keras weights", "$clipped_1$")
GROUPS = {model: [f"{model}: {order}" for order in ORDERS] for model in MODELS}
VERDICTS = ("held", "failed: not within ±2.0", "open: above +5.0 or not", "")
FLOORS = {"source never read": 0.001, "top two digits known": 0.1, "carry ignored": 0.93}
RNG = np.random.default_rng


def many(seeds: int = 10) -> dict[str, Any]:
    """Test scores of thirty arms."""
    rng = RNG(0)
    means = {arm: rng.uniform(0.05, 0.95) for names in GROUPS.values() for arm in names}
    scores = {a: np.clip(m + rng.normal(0, 0.04, seeds), 0, 1) for a, m in means.items()}
    return make_results(
        {a: {EXACT: x.tolist(), BLEU: (40 * x).tolist()} for a, x in scores.items()}
    )


def few(seeds: int, arms: tuple[str, ...] = ORDERS, epochs: int = 12) -> dict[str, Any]:
    """Curves on the dev set, and test accuracy by position; one mode lacks the first position."""
    metrics = {EXACT: 1.0, "loss": 2.0, BLEU: 40.0}
    metrics |= {f"free_running/position_{p}": 1.0 for p in (1, 2, 3)}
    metrics |= {f"teacher_forced/position_{p}": 1.0 for p in (2, 3)}
    rng = RNG(1)
    records = [
        {"arm": arm, "seed": s, "split": split, "epoch": e, "metric": metric, "value": value}
        for i, arm in enumerate(arms)
        for s in range(seeds)
        for e in range(1, epochs + 1)
        for metric, top in metrics.items()
        for value in [top * (0.4 + 0.1 * i) * (1 - 0.6**e) * rng.uniform(0.9, 1)]
        for split in ("dev", "test")
    ]
    return {**make_results(), "records": records}


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


def draw_curves(seeds: int, path: Path) -> None:
    learning_curves(few(seeds), EXACT, FLOORS, path, {"forward": 0.65, "dealt": 0.9})


def draw_bleu(seeds: int, path: Path) -> None:
    learning_curves(few(seeds, ORDERS[:2]), BLEU, {"the source, copied": 4.2}, path)


def draw_positions(seeds: int, path: Path) -> None:
    accuracy_by_position(few(seeds), path)


def draw_forest(seeds: int, path: Path) -> None:
    forest(many(seeds), contrasts(), EXACT, path)


def draw_scores(seeds: int, path: Path) -> None:
    scores_by_arm(many(seeds), EXACT, path, GROUPS, FLOORS)


def draw_shares(seeds: int, path: Path) -> None:
    groups = {
        arm: {f"{c} carries": RNG(c).random(seeds).tolist() for c in range(9)} for arm in ORDERS
    }
    shares_by_category(
        groups, {f"{c} carries": 700 * c for c in range(9)}, path, "right, by carries", "chain"
    )


def draw_steps(seeds: int, path: Path) -> None:
    epochs = {
        arm: {seed: 20 * k + 5 * seed if seed + k < 10 else None for seed in range(seeds)}
        for k, arm in enumerate(ORDERS)
    }
    step_curves(epochs, 200, path, "exact match of 90 % reached, dev set")


def draw_heat(seeds: int, path: Path) -> None:
    panels = {
        arm: {f"epoch {e}": heat(4 + k % 2, 7 + k, 0.01 + e / 100) for e in (0, 10, 50, 100, 200)}
        for k, arm in enumerate(ORDERS)
    }
    note, label = f"mean over {seeds} seeds, 500 questions", "norm, nats per unit of embedding"
    heat_maps(panels, path, "norm of d logit_t / d input_s", label, note, log=True)


DRAWINGS = [
    draw_curves, draw_bleu, draw_positions, draw_forest, draw_scores, draw_shares, draw_steps,
    draw_heat,
]  # fmt: skip


class Drawn(NamedTuple):
    """A text that was drawn, and where: x0, y0, x1, y1 in pixels from the lower left."""

    text: str
    box: tuple[float, float, float, float]


@pytest.fixture
def drawn(monkeypatch) -> list[Drawn]:
    """Every text that is drawn from now on."""
    from matplotlib.text import Text

    texts: list[Drawn] = []
    places: dict[Text, int] = {}  # the last drawing of a text counts: layout comes before it
    draw = Text.draw

    def recording(self: Text, renderer: Any) -> None:
        draw(self, renderer)
        if self.get_visible() and self.get_text().strip():
            box = Text.get_window_extent(self, renderer).extents.tolist()
            place = places.setdefault(self, len(texts))
            texts[place:] = [Drawn(self.get_text(), box), *texts[place + 1 :]]

    monkeypatch.setattr(Text, "draw", recording)
    return texts


def shown(drawn: list[Drawn]) -> list[str]:
    """The texts, each in one line."""
    return [" ".join(text.split()) for text, _ in drawn]


def pixels(path: Path) -> np.ndarray:
    """RGB of a PNG, ``[height, width, 3]``, in 0..1."""
    from matplotlib.image import imread

    return imread(path)[..., :3]


def where(image: np.ndarray, colour: str) -> np.ndarray:
    """Pixels ``[height, width]`` of exactly that colour."""
    rgb = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.abs(image - rgb).max(axis=-1) < 1e-3


def has(image: np.ndarray, *colours: str) -> bool:
    return all(where(image, colour).any() for colour in colours)


# --- every picture ----------------------------------------------------------------------------


@pytest.mark.parametrize("seeds", [1, 10])
@pytest.mark.parametrize("draw", DRAWINGS)
def test_texts_are_on_the_page_and_clear_of_one_another(tmp_path, drawn, draw, seeds):
    draw(seeds, tmp_path / "a.png")
    height, width, _ = pixels(tmp_path / "a.png").shape
    assert width == WIDTH * DPI
    assert len(drawn) > 10
    for i, (text, (x0, y0, x1, y1)) in enumerate(drawn):
        assert min(x0, y0) >= 2, text
        assert x1 <= width - 2, text
        assert y1 <= height - 2, text
        for other, (u0, v0, u1, v1) in drawn[i + 1 :]:
            # An empty line keeps a box away from its neighbour's letters.
            if "\n" not in (text[:1], text[-1:], other[:1], other[-1:]):
                over = min(x1, u1) - max(x0, u0) > 2 and min(y1, v1) - max(y0, v0) > 3
                assert not over, (text, other)
    assert any(text.startswith(("One seed.", "10 seeds.", "Mean over")) for text in shown(drawn))


@pytest.mark.parametrize("draw", DRAWINGS)
def test_the_same_numbers_give_the_same_bytes_and_others_do_not(tmp_path, draw):
    first, second, other = (tmp_path / f"{name}.png" for name in "abc")
    for path, seeds in ((first, 3), (second, 3), (other, 4)):
        draw(seeds, path)
    assert first.read_bytes() == second.read_bytes() != other.read_bytes()
    assert b"Software" not in first.read_bytes()


def test_the_users_matplotlib_settings_are_neither_used_nor_changed(tmp_path):
    import matplotlib

    draw_curves(3, tmp_path / "plain.png")
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "black"}):
        before = dict(matplotlib.rcParams)
        draw_curves(3, tmp_path / "styled.png")
        assert dict(matplotlib.rcParams) == before
    assert (tmp_path / "plain.png").read_bytes() == (tmp_path / "styled.png").read_bytes()


def test_matplotlib_is_imported_only_to_draw_and_neither_pyplot_nor_jax_ever(tmp_path):
    code = f"""
import sys, pathlib
sys.path.insert(0, "tests")
import s2sjax.report.plots
print(sorted({{"matplotlib", "scipy.stats", "jax"}} & set(sys.modules)))
from s2sjax.report.plots import step_curves
step_curves({{"a": {{0: 1}}}}, 5, pathlib.Path({str(tmp_path / "a.png")!r}), "reached")
print([name in sys.modules for name in ("matplotlib", "matplotlib.pyplot", "jax")])
"""
    root = Path(__file__).parent.parent
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root
    )
    assert out.stdout.splitlines() == ["[]", "[True, False, False]"]


def test_a_character_without_a_font_is_a_box_and_a_note_not_a_warning(tmp_path, drawn):
    step_curves({"a \U00012000": {0: 1}}, 5, tmp_path / "a.png", "cuneiform")  # warnings are errors
    assert "One seed. Boxes: characters that no installed font has." in shown(drawn)


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda p: learning_curves(few(1), "bleu", {}, p), "No records of arm 'forward', metric"),
        (lambda p: accuracy_by_position(many(1), p), "nothing to draw"),
        (lambda p: forest(many(1), [], EXACT, p), "nothing to draw"),
        (lambda p: forest(many(1), contrasts(), "bleu", p), "No records of arm"),
        (lambda p: scores_by_arm(many(1), EXACT, p, {"g": ["later"]}), "No records of arm 'later'"),
        (lambda p: scores_by_arm(many(1), EXACT, p, {}), "nothing to draw"),
        (lambda p: shares_by_category({}, {1: 2}, p, "t", "x"), "nothing to draw"),
        (lambda p: step_curves({}, 5, p, "t"), "nothing to draw"),
    ],
)
def test_what_cannot_be_drawn_is_refused_and_nothing_is_written(tmp_path, draw, message):
    with pytest.raises(ValueError, match=message):
        draw(tmp_path / "a.png")
    assert not any(tmp_path.iterdir())


def test_seeds_are_counted_in_words():
    assert seed_note([1, 1], "Dots.") == "One seed."
    assert seed_note([3], "Dots.") == "3 seeds. Dots."
    assert seed_note([10, 1, 5], "Dots.") == "1 to 10 seeds. Dots."


# --- what each shows --------------------------------------------------------------------------


def test_curves_name_arms_floors_and_what_was_published(tmp_path, drawn):
    draw_curves(3, tmp_path / "a.png")
    means = [f"{arm}: {100 * np.mean(values(few(3), arm, EXACT, 'dev')):.1f} %" for arm in ORDERS]
    others = {"carry ignored: 93.0 %", "forward, published: 65.0 %", "dealt, published: 90.0 %"}
    assert {*means, *others} < {*shown(drawn)}
    assert has(pixels(tmp_path / "a.png"), "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00")


def test_every_seed_is_drawn(tmp_path):
    def draw(name: str, seeds: int) -> np.ndarray:
        draw_bleu(seeds, tmp_path / name)
        return pixels(tmp_path / name)[100:500, 100:700]

    tinted = [(draw(f"{n}.png", n).min(axis=-1) < 0.9).sum() for n in (1, 5, 20)]
    assert tinted[0] < tinted[1] < tinted[2]


def test_floors_cross_the_axes(tmp_path):
    draw_curves(1, tmp_path / "a.png")
    grey = where(pixels(tmp_path / "a.png"), "#666666")[100:500, 200:600]
    assert grey.sum(axis=1).max() > 100


def test_one_evaluation_is_still_visible(tmp_path):
    learning_curves(few(2, ("a", "b"), epochs=1), EXACT, {}, tmp_path / "a.png")
    assert has(pixels(tmp_path / "a.png")[:, 400:1000], "#D55E00")


def test_bleu_is_in_points_and_without_per_cent(tmp_path, drawn):
    draw_bleu(2, tmp_path / "a.png")
    forest(many(3), contrasts()[:2], BLEU, tmp_path / "b.png")
    assert {"the source, copied: 4.2", "difference, BLEU points"} < {*shown(drawn)}
    assert not any("%" in text.replace("95 %", "") for text in shown(drawn))


def test_a_mode_without_positions_is_left_out(tmp_path, drawn):
    results = few(2)
    accuracy_by_position(results, tmp_path / "both.png")
    assert (shown(drawn).count("teacher-forced"), shown(drawn).count("free-running")) == (1, 1)
    free = [r for r in results["records"] if not r["metric"].startswith("teacher")]
    accuracy_by_position({**results, "records": free}, tmp_path / "free.png")
    assert (shown(drawn).count("teacher-forced"), shown(drawn).count("free-running")) == (1, 2)


def test_a_forest_shows_every_row(tmp_path, drawn):
    results, rows = many(), contrasts()
    forest(results, rows, EXACT, tmp_path / "a.png")
    texts = shown(drawn)
    said = "Dots: seeds; bars: their mean, with its 95 % interval of the sign-flip test"
    assert texts.count(f"10 seeds. {said}.") == 1
    assert {*GROUPS} < {*texts}
    for row in rows:
        c = paired(results, row.a, row.b, EXACT)
        assert f"{difference(c.mean_difference, c.ci95, EXACT)} {row.verdict}".strip() in texts
    assert has(pixels(tmp_path / "a.png"), "#0072B2", "#D55E00", "#666666")


def test_rows_have_names_bars_and_numbers_at_the_same_height(tmp_path, drawn):
    results = make_results({"a": {EXACT: [0.3, 0.4] * 3}, "b": {EXACT: [0.1, 0.1] * 3}})
    rows = [Contrast("a − b", "a", "b"), Contrast("b − a", "b", "a", "failed")]
    forest(results, rows, EXACT, tmp_path / "a.png")
    boxes = dict(drawn)
    up, down = (difference(s * 0.25, sorted((s * 0.2, s * 0.3)), EXACT) for s in (1, -1))
    middle = lambda text: (boxes[text][1] + boxes[text][3]) / 2
    assert middle("a − b") == pytest.approx(middle(up), abs=4)
    assert middle("b − a") == pytest.approx(middle(f"{down}\nfailed"), abs=4)
    assert boxes["a − b"][2] < boxes[up][0]  # names on the left, numbers on the right
    image = pixels(tmp_path / "a.png")
    orange = where(image, "#D55E00").nonzero()
    height = image.shape[0] - orange[0][orange[1] < boxes[up][0]]  # the bar, not the numbers
    assert abs(height.mean() - middle("b − a")) < 0.15 * DPI


def test_seeds_are_counted_row_by_row(tmp_path, drawn):
    results = many(5)
    lost = GROUPS["GRU"][1]
    results["records"] = [
        r for r in results["records"] if r["arm"] != lost or r["seed"] not in (1, 3)
    ]
    forest(results, contrasts(), EXACT, tmp_path / "a.png")
    assert any(text.startswith("3 to 5 seeds.") for text in shown(drawn))


def test_scores_show_every_arm_and_floor(tmp_path, drawn):
    draw_scores(10, tmp_path / "a.png")
    texts, results = {*shown(drawn)}, many()
    for arm in (arm for names in GROUPS.values() for arm in names):
        assert {arm, score(values(results, arm, EXACT), EXACT)} < texts
    assert {"source never read: 0.1 %", "top two digits known: 10.0 %"} < texts
    assert has(pixels(tmp_path / "a.png"), "#0072B2", "#D55E00", "#009E73", "#56B4E9")


def test_shares_name_the_questions_and_an_arm_may_lack_categories(tmp_path, drawn):
    groups = {"a": {"1+1": [0.5, 0.6], "2+1": [0.5]}, "b": {"2+1": [0.1]}}
    shares_by_category(groups, {"1+1": 1234, "2+1": 20}, tmp_path / "a.png", "shares", "digits")
    note = "1 to 2 seeds. Dots: seeds; bars: the mean of an arm."
    assert {"1+1 1,234", "2+1 20", "a", "b", note} < {*shown(drawn)}


def test_steps_rise_at_their_epochs_and_arms_are_counted(tmp_path, drawn):
    at = []
    for epoch in (10, 25, 40):
        step_curves({"arm": {0: epoch, 1: None}}, 50, tmp_path / "a.png", "reached")
        blue = where(pixels(tmp_path / "a.png")[:, :900], "#0072B2")
        at.append(blue.sum(axis=0).argmax())  # the upright line
    assert at[1] - at[0] == pytest.approx(at[2] - at[1], abs=2)
    assert at[0] < at[1]
    assert {"arm: 1 of 2", "2 seeds. A step is a seed."} < {*shown(drawn)}


def test_coinciding_arms_and_more_arms_than_colours_can_be_told_apart(tmp_path):
    epochs = {f"arm {i}": {0: 10, 1: 20} for i in range(8)}
    step_curves(epochs, 50, tmp_path / "a.png", "reached")
    middle = pixels(tmp_path / "a.png")[:, 600:800]  # where all are at the top
    assert has(middle, "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
    blue = where(middle, "#0072B2").mean(axis=1)
    assert blue.max() == 1  # arm 0
    assert ((blue > 0.4) & (blue < 0.95)).any()  # arm 7 is dashed


def test_heat_maps_name_rows_columns_and_characters(tmp_path, drawn):
    panels = {
        "forward": {"epoch 1": heat(3, 8), "epoch 9": heat(3, 8, 5.0)},
        "swapped": {"epoch 9": heat(4, 5)},
    }
    heat_maps(panels, tmp_path / "a.png", "norms", "norm", "mean over 10 seeds")
    texts = shown(drawn)
    assert {"forward", "swapped", "norm", "Mean over 10 seeds.", "Norms"} < {*texts}
    assert (texts.count("epoch 1"), texts.count("epoch 9"), texts.count("output")) == (1, 2, 2)
    assert (texts.count("+"), texts.count("␣")) == (3, 2)  # five inputs end at "4"


def test_all_heat_maps_share_one_scale(tmp_path):
    from matplotlib import colormaps

    low, top = (Heat(np.full((2, 2), x), [*"ab"], [*"cd"]) for x in (1.0, 4.0))
    for log, expected in ((False, (0.25, 1.0)), (True, (np.log10(1 / 0.4), 1.0))):
        heat_maps({"a": {"x": low, "y": top}}, tmp_path / "a.png", "t", "l", "n", log=log)
        image = pixels(tmp_path / "a.png")[:, :700]  # without the colour bar
        for place in expected:
            rgb = np.array(colormaps["viridis"](min(int(place * 256), 255))[:3])
            assert (np.abs(image - rgb).max(axis=-1) < 3e-3).sum() > 1_000


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize("value", [0.0, 1e-12, 3.0])
def test_flat_heat_maps_can_be_drawn(tmp_path, value, log):
    flat = Heat(np.full((1, 1), value), ["a"], ["<bos>"])
    heat_maps({"a": {"x": flat}}, tmp_path / "a.png", "t", "l", "n", log=log)
    assert pixels(tmp_path / "a.png").shape[1] == WIDTH * DPI
