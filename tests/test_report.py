"""Tables, the report, the README's blocks: one object, the same words everywhere."""

import io
import re

import pytest
from fake_results import EXACT, LOSS, SCORES, make_results
from rich.console import Console

from s2sjax.report.stats import compare, interval, next_seed_range
from s2sjax.report.tables import (
    Picture,
    Table,
    comparison_table,
    difference,
    lower_is_better,
    metric_name,
    number,
    per_seed_table,
    provenance,
    quantity,
    replace_blocks,
    score,
    score_table,
    write_report,
)


def parse(markdown: str) -> list[list[str]]:
    """Cells of a pipe table, header first, without the rule."""
    lines = [line for line in markdown.splitlines() if line.startswith("|")]
    assert re.fullmatch(r"\|( (-{2,}[-:]) \|)+", lines[1])
    cells = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    return [cells[0], *cells[2:]]


def terminal(table: Table, width: int = 200) -> str:
    console = Console(width=width, file=io.StringIO(), color_system=None)
    console.print(table.rich())
    return console.file.getvalue()


# --- numbers ----------------------------------------------------------------------------------


def test_fractions_are_shown_in_per_cent_and_losses_are_not():
    assert number(0.6507, EXACT) == "65.1"
    assert quantity(0.6507, EXACT) == "65.1 %"
    assert quantity(0.99394, LOSS) == "0.9939"
    assert number(0.123, EXACT, "+") == "+12.3"
    assert number(-0.123, EXACT, "+") == "−12.3"
    assert number(-0.00001, EXACT) == "0.0"  # no minus nought
    assert quantity(1.0, "epoch_loss") == "1.0000"


def test_a_score_is_the_mean_with_its_interval():
    mean, (low, high) = interval([0.5, 0.61, 0.55])
    shown = f"{100 * mean:.1f} % [{100 * low:.1f}, {100 * high:.1f}]"
    assert score([0.5, 0.61, 0.55], EXACT) == shown
    assert score([0.5, 0.61], EXACT) == "55.5 %"
    assert score([0.5], EXACT) == "50.0 %"


@pytest.mark.parametrize(
    ("metric", "words", "shown", "apart"),
    [
        ("loss", "loss, nats per token", "0.2500", "+0.2500"),
        ("loss/length_8+", "loss, nats per token, length 8+", "0.2500", "+0.2500"),
        ("teacher_forced/all", "token accuracy, teacher-forced", "25.0 %", "+25.0"),
        ("free_running/exact_match", "exact match, free-running", "25.0 %", "+25.0"),
        ("free_running/position_12", "accuracy at position 12, free-running", "25.0 %", "+25.0"),
        (
            "free_running/exact_match/length_3",
            "exact match, free-running, length 3",
            "25.0 %",
            "+25.0",
        ),
        ("keras/padded", "keras/padded", "25.0 %", "+25.0"),
        ("symbol_error_rate", "symbol error rate", "25.0 %", "+25.0"),
        ("perplexity", "perplexity", "0.25", "+0.25"),
        ("BLEU", "BLEU", "0.2", "+0.2"),
        ("BLEU/length_1-7", "BLEU, length 1-7", "0.2", "+0.2"),
        ("chrF", "chrF", "0.2", "+0.2"),
    ],
)
def test_a_metric_has_a_name_and_a_unit_everywhere(metric, words, shown, apart):
    assert metric_name(metric) == words
    assert quantity(0.25, metric) == shown
    assert difference(0.25, None, metric) == apart
    results = make_results({"a": {metric: [0.25]}, "b": {metric: [0.5]}})
    assert score_table(results, {"x": metric}).rows[0] == ("a, 1 seed", shown)
    assert per_seed_table(results, metric).title.startswith(words)
    assert per_seed_table(results, metric).rows[0][1] == shown.removesuffix(" %")
    assert comparison_table(results).rows[0][3:5] == (shown, apart)


def test_lower_is_better_for_losses_and_errors_only():
    lower = (
        "loss",
        "epoch_loss",
        "perplexity",
        "symbol_error_rate",
        "loss/length_3",
        "a/symbol_error_rate",
    )
    assert all(map(lower_is_better, lower))
    assert not any(map(lower_is_better, ("BLEU", "chrF", EXACT, "BLEU/length_1-7")))


def test_a_run_of_one_arm_has_nothing_to_compare():
    assert comparison_table({**make_results(), "comparisons": []}).rows == ()


# --- tables -----------------------------------------------------------------------------------


def test_markdown_is_aligned_and_parsable():
    table = Table("T", ("arm", "score | points"), (("a|b", "1.5"), ("longer", "−12.5")), "A note.")
    lines = table.markdown().splitlines()
    assert lines == [
        "| arm    | score \\| points |",
        "| ------ | --------------: |",
        "| a\\|b   |             1.5 |",
        "| longer |           −12.5 |",
        "",
        "*A note.*",
    ]
    assert parse(table.markdown())[1] == ["a\\|b", "1.5"]
    assert table.markdown(heading=True).startswith("### T\n\n| arm ")


def test_what_a_file_holds_is_neither_a_terminals_command_nor_html():
    """Fault 26o."""
    cells = (
        "\x1b[2Ja\u202e\x9b",
        "<img src=x>&amp;",
        "![](http://a.b)",
        "été雪\u200d \u2066",
    )
    table = Table("T", ("a\x07", "b", "c", "d"), (cells,))
    assert parse(table.markdown())[1] == [
        r"\x1b[2Ja\u202e\x9b",
        "&lt;img src=x>&amp;amp;",
        r"![]\(http://a.b)",
        "été雪\u200d \\u2066",
    ]
    shown = terminal(table)
    assert r"\x1b[2Ja\u202e\x9b" in shown
    assert r"a\x07" in shown
    assert "<img src=x>&amp;" in shown


def test_columns_of_numbers_stand_on_the_right_and_words_on_the_left():
    table = Table(
        "T", ("a", "b", "c", "d"), (("1", "x", "–", ""), ("+2", "3", "65.1 % [1, 2]", "4"))
    )
    assert table.markdown().splitlines()[1] == "| --: | --- | ------------: | --: |"
    justify = [column.justify for column in table.rich().renderables[1].columns]
    assert justify == ["right", "left", "right", "right"]


def test_terminal_and_markdown_say_the_same():
    results = make_results()
    for table in (
        score_table(results, {"exact": EXACT, "loss": LOSS}),
        comparison_table(results),
        per_seed_table(results, EXACT),
    ):
        shown = terminal(table)
        for cell in (cell for row in parse(table.markdown()) for cell in row):
            assert cell in shown
        assert table.title in " ".join(shown.split())  # it wraps over a narrow table


def test_terminal_takes_brackets_literally_and_never_splits_a_word():
    table = Table("[bold]T", ("[red]arm", "score"), (("[reversed] teacher-forced", "1 [0, 2]"),))
    assert "[bold]T" in terminal(table)
    assert "[red]arm" in terminal(table)
    assert "teacher-forced" in terminal(table, width=20)


def test_tables_are_the_same_twice_whatever_the_order_of_the_records():
    results = make_results()
    turned = {
        **results,
        "records": sorted(results["records"], key=lambda r: (r["arm"], -r["epoch"])),
    }
    for make in (lambda r: score_table(r, {"x": EXACT}), lambda r: per_seed_table(r, EXACT)):
        assert make(results) == make(results) == make(turned)
    assert comparison_table(results) == comparison_table(results)


def test_score_table_holds_references_arms_and_ranges():
    references = [("floor", {EXACT: 0.001, LOSS: None}), ("published", {LOSS: 0.9939})]
    table = score_table(make_results(), {"exact match": EXACT, "loss": LOSS}, references)
    assert table.headers == ("", "exact match", "loss")
    assert table.rows == (
        ("floor", "0.10 %", "–"),
        ("published", "–", "0.9939"),
        ("forward, 3 seeds", score([0.10, 0.12, 0.11], EXACT), score([1.0, 0.9, 0.95], LOSS)),
        ("forward, lowest to highest", "10.0 to 12.0", "0.9000 to 1.0000"),
        ("reversed, 3 seeds", score([0.50, 0.61, 0.55], EXACT), score([0.1, 0.2, 0.15], LOSS)),
        ("reversed, lowest to highest", "50.0 to 61.0", "0.1000 to 0.2000"),
    )


def test_score_table_predicts_one_more_seed_where_asked():
    table = score_table(make_results(), {"exact match": EXACT}, next_seed=True)
    low, high = next_seed_range([0.10, 0.12, 0.11])
    said = f"{number(low, EXACT)} to {number(high, EXACT)}"
    assert table.rows[2] == ("forward, one more seed (95 %)", said)


def test_score_table_of_one_seed_has_no_range_and_no_interval():
    table = score_table(make_results({"forward": {EXACT: [0.25]}}), {"exact": EXACT})
    assert table.rows == (("forward, 1 seed", "25.0 %"),)


def test_a_metric_that_nobody_measured_is_refused():
    with pytest.raises(ValueError, match=r"metric 'bleu'.*there are arms"):
        score_table(make_results(), {"BLEU": "bleu"})


def test_per_seed_table_shows_every_seed_of_every_arm():
    table = per_seed_table(make_results(), EXACT)
    assert table.headers == ("seed", "forward", "reversed")
    assert table.rows == (
        ("0", "10.0", "50.0"),
        ("1", "12.0", "61.0"),
        ("2", "11.0", "55.0"),
        ("mean", "11.0", "55.3"),
    )


def test_comparison_table_reports_what_stats_computed():
    scores = {arm: {m: 2 * seeds for m, seeds in of.items()} for arm, of in SCORES.items()}
    table = comparison_table(make_results(scores))
    c = compare("reversed", "forward", EXACT, *(scores[arm][EXACT] for arm in [*scores][::-1]))
    assert table.headers[:4] == ("reversed − forward", "n", "reversed", "forward")
    row, loss = table.rows
    assert row[:4] == ("exact match, free-running", "6", "55.3 %", "11.0 %")
    assert row[4] == f"+44.3 [+{100 * c.ci95[0]:.1f}, +{100 * c.ci95[1]:.1f}]"
    assert row[5:] == ("0.031", f"+{c.d_z:.2f}", "1.00")
    assert loss[0] == "loss, nats per token"
    assert loss[4].startswith("−0.8000 [−")
    assert "[95 % interval: the shifts that the sign-flip test does not reject]" in table.note


def test_few_seeds_have_no_interval_of_a_difference():
    table = comparison_table(make_results())
    assert [row[4] for row in table.rows] == ["+44.3", "−0.8000"]
    assert "[95 %" not in table.note
    assert "smallest possible p is 0.25" in table.note


def test_comparison_table_names_the_pair_where_there_are_several():
    scores = {"a": {LOSS: [1.0]}, "b": {LOSS: [2.0]}, "c": {LOSS: [2.5]}}
    table = comparison_table(make_results(scores))
    assert [row[0] for row in table.rows] == [
        "b − a: loss, nats per token",
        "c − b: loss, nats per token",
    ]
    assert table.rows[0][4:] == ("+1.0000", "–", "–", "1.00")
    assert "One seed" in table.note


def test_enough_seeds_need_no_caution():
    scores = {
        arm: {LOSS: [i + k / 10 + k * k / 70 for k in range(10)]} for i, arm in enumerate("ab")
    }
    table = comparison_table(make_results(scores))
    assert table.note.endswith("a is above b.")


def test_provenance_names_config_software_and_hardware():
    sentence = provenance(make_results())
    for word in ("reverse_vs_forward", "smoke", "c0ffee", "jax 0.10.2", "2 x cpu"):
        assert word in sentence


# --- writing ----------------------------------------------------------------------------------


def test_report_holds_its_sections_in_order(tmp_path):
    table = Table("Scores", ("arm", "score"), (("a", "1"),))
    picture = Picture(tmp_path / "pictures" / "learning curves.png", "Curves")
    write_report(tmp_path / "report.md", ["# Title", "Words.\n", table, picture])
    assert (tmp_path / "report.md").read_text(encoding="utf-8") == (
        f"# Title\n\nWords.\n\n{table.markdown(heading=True)}\n\n"
        "![Curves](pictures/learning%20curves.png)\n"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["report.md"]


def test_a_report_that_fails_leaves_the_old_one(tmp_path):
    path = tmp_path / "report.md"
    write_report(path, ["old"])

    def sections():
        yield "new"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_report(path, sections())
    assert path.read_text(encoding="utf-8") == "old\n"
    assert [*tmp_path.iterdir()] == [path]


README = """# Readme

<!-- begin one -->
old
<!-- end one -->
between
<!-- begin two --><!-- end two -->
after
"""


def test_blocks_are_replaced_and_nothing_else():
    text = replace_blocks(README, {"one": "| a |\n| - |\n"})
    assert text == README.replace("\nold\n", "\n\n| a |\n| - |\n\n")
    assert "old" not in text


def test_replacing_twice_changes_nothing():
    blocks = {"one": r"a \1 \g<0> back\slash", "two": "b"}
    once = replace_blocks(README, blocks)
    assert replace_blocks(once, blocks) == once
    assert blocks["one"] in once
    assert replace_blocks(README, {}) == README


@pytest.mark.parametrize(
    "text",
    [
        "nothing",
        "<!-- begin one -->",
        "<!-- end one --><!-- begin one -->",
        README + README,
        "<!-- begin one --><!-- begin two --><!-- end one --><!-- end two -->",
    ],
)
def test_wrong_markers_are_refused(text):
    with pytest.raises(ValueError, match="Block 'one' needs '<!-- begin one -->' and"):
        replace_blocks(text, {"one": "new"})
