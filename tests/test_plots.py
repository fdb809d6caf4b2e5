"""Pictures: of the promised size, the same twice, and with what they were given in them."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from s2sjax.plots import accuracy_by_position, learning_curves, score_distribution, spread_out

ALL, EXACT = "teacher_forced/all", "free_running/exact_match"
FLOORS = {"source never read": 0.35, "top two digits known": 0.6861}


def make_results(
    seeds: int,
    positions: int = 4,
    arms: tuple[str, ...] = ("forward", "reversed"),
    epochs: int = 12,
) -> dict[str, Any]:
    """Curves that rise to .6 and above; the teacher-forced first position is not predicted."""
    rng = np.random.default_rng(0)
    records = []

    def record(arm, seed, split, epoch, metric, value):
        keys = ("arm", "seed", "split", "epoch", "metric", "value")
        records.append(dict(zip(keys, (arm, seed, split, epoch, metric, value), strict=True)))

    for i, arm in enumerate(arms):
        for seed in range(seeds):
            end = 0.6 + 0.35 * (i + 1) / len(arms) + rng.normal(0, 0.01)
            for epoch in range(1, epochs + 1):
                record(arm, seed, "dev", epoch, ALL, end * (1 - 0.6**epoch))
                record(arm, seed, "dev", epoch, "loss", 2 * 0.8**epoch)
            for metric, value in ((ALL, end), (EXACT, end**4), ("loss", 2 * 0.8**epochs)):
                record(arm, seed, "test", epochs, metric, value)
            for position in range(1, positions + 1):
                if position > 1:
                    record(arm, seed, "test", epochs, f"teacher_forced/position_{position}", end)
                record(arm, seed, "test", epochs, f"free_running/position_{position}", end / 2)
    return {"experiment": "e", "preset": "p", "records": records}


def curves(results: dict[str, Any], path: Path) -> None:
    learning_curves(results, ALL, FLOORS, path, {"forward": 0.6507})


def positions(results: dict[str, Any], path: Path) -> None:
    accuracy_by_position(results, path)


def distribution(results: dict[str, Any], path: Path) -> None:
    score_distribution(
        results, {"tokens": ALL, "answers": EXACT, "loss": "loss"}, path, {ALL: FLOORS}
    )


DRAWINGS = [curves, positions, distribution]


def pixels(path: Path) -> np.ndarray:
    """RGB of a PNG, ``[height, width, 3]``, in 0..1."""
    from matplotlib.image import imread

    return imread(path)[..., :3]


def has(image: np.ndarray, colour: str) -> bool:
    """Whether a colour is in the picture, unmixed."""
    rgb = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return bool((np.abs(image - rgb).max(axis=-1) < 1e-3).any())


@pytest.mark.parametrize("draw", DRAWINGS)
@pytest.mark.parametrize(
    ("seeds", "length", "arms"),
    [
        (1, 2, ("forward",)),
        (3, 5, ("forward", "reversed")),
        (10, 3, ("forward", "digits_reversed", "operands_swapped", "reversed + peeky $x_")),
    ],
)
def test_pictures_have_the_promised_width_and_show_every_arm(tmp_path, draw, seeds, length, arms):
    draw(make_results(seeds, length, arms), tmp_path / "picture.png")
    image = pixels(tmp_path / "picture.png")
    assert image.shape[1] == 1200
    assert 500 < image.shape[0] < 1700
    margin = np.concatenate([image[:10].reshape(-1, 3), image[:, :8].reshape(-1, 3)])
    assert (margin == 1).all()  # white, and no text runs over the left or upper edge
    assert (image[:, -8:] == 1).all()
    assert (image[-5:] == 1).all()
    colours = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")
    assert [has(image, colour) for colour in colours] == [i < len(arms) for i in range(4)]


@pytest.mark.parametrize("draw", DRAWINGS)
def test_the_same_records_give_the_same_bytes_and_others_do_not(tmp_path, draw):
    first, second, other = (tmp_path / f"{name}.png" for name in "abc")
    draw(make_results(3), first)
    draw(make_results(3), second)
    draw(make_results(4), other)
    assert first.read_bytes() == second.read_bytes() != other.read_bytes()
    assert b"Software" not in first.read_bytes()


def test_the_users_matplotlib_settings_are_neither_used_nor_changed(tmp_path):
    import matplotlib

    curves(make_results(3), tmp_path / "plain.png")
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "black"}):
        before = dict(matplotlib.rcParams)
        curves(make_results(3), tmp_path / "styled.png")
        assert dict(matplotlib.rcParams) == before
    assert (tmp_path / "plain.png").read_bytes() == (tmp_path / "styled.png").read_bytes()


def test_floors_and_published_values_are_drawn(tmp_path):
    def draw(name: str, *arguments: Any) -> np.ndarray:
        learning_curves(make_results(2), ALL, arguments[0], tmp_path / name, *arguments[1:])
        return pixels(tmp_path / name)

    bare = draw("bare.png", {})
    floored = draw("floored.png", {"floor": 0.2})
    # A dashed line: in one row of pixels many are new, over most of the width of the axes.
    new = (bare != floored).any(axis=-1)
    row = new[new.sum(axis=1).argmax()].nonzero()[0]
    assert len(row) > 300
    assert np.ptp(row) > 700
    assert (draw("published.png", {}, {"forward": 0.2}) != bare).any()


def test_losses_are_drawn_on_their_own_scale(tmp_path):
    learning_curves(make_results(2), "loss", {"floor": 1.679}, tmp_path / "loss.png")
    assert pixels(tmp_path / "loss.png").shape == (675, 1200, 3)


def test_one_evaluation_is_still_visible(tmp_path):
    curves(make_results(2, epochs=1), tmp_path / "one.png")
    assert has(pixels(tmp_path / "one.png"), "#D55E00")


def test_a_mode_without_positions_is_left_out(tmp_path):
    results = make_results(2)
    both = tmp_path / "both.png"
    accuracy_by_position(results, both)
    free = [r for r in results["records"] if not r["metric"].startswith("teacher_forced/position")]
    accuracy_by_position({**results, "records": free}, tmp_path / "free.png")
    assert both.read_bytes() != (tmp_path / "free.png").read_bytes()
    none = [r for r in free if "position" not in r["metric"]]
    with pytest.raises(ValueError, match="No test records of accuracy by position"):
        accuracy_by_position({**results, "records": none}, tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()


@pytest.mark.parametrize(
    "draw",
    [
        lambda results, path: learning_curves(results, "bleu", {}, path),
        lambda results, path: score_distribution(results, {"BLEU": "bleu"}, path, {}),
    ],
)
def test_a_missing_metric_is_named_and_nothing_is_written(tmp_path, draw: Callable[..., None]):
    with pytest.raises(ValueError, match="No records of arm 'forward', metric 'bleu'"):
        draw(make_results(1), tmp_path / "picture.png")
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    "heights", [[0.5], [0.9, 0.1], [0.5, 0.5, 0.5], [0.99, 0.98, 0.2, 0.97], [1.0, 1.0, 1.0]]
)
def test_labels_are_moved_apart_and_no_further(heights):
    moved = np.array(spread_out(heights, gap=0.1, top=1.02))
    ranked = np.sort(moved)
    assert (np.diff(ranked) >= 0.1 - 1e-6).all()
    assert moved.max() <= 1.02
    assert (np.argsort(moved, kind="stable") == np.argsort(heights, kind="stable")).all()
    if (np.diff(np.sort(heights)) >= 0.1).all():
        assert moved.tolist() == heights


def test_matplotlib_is_imported_only_to_draw_and_pyplot_never(tmp_path):
    code = f"""
import sys, pathlib
sys.path.insert(0, "tests")
import s2sjax.plots
print(sorted({{"matplotlib", "scipy.stats"}} & set(sys.modules)))
import test_plots
test_plots.curves(test_plots.make_results(1), pathlib.Path({str(tmp_path / "a.png")!r}))
print("matplotlib" in sys.modules, "matplotlib.pyplot" in sys.modules)
"""
    root = Path(__file__).parent.parent
    shown = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root
    )
    assert shown.stdout.splitlines() == ["[]", "True False"]
