"""What is about to run, shown before it does."""

from dataclasses import replace

from s2sjax.config import Model, Optimiser, Text, Training
from s2sjax.data.tasks import Addition, Sentences
from s2sjax.study.ablation import Ablation
from s2sjax.study.plan import (
    pairs_table,
    parameter_count,
    parameter_table,
    plan_table,
    program_table,
)
from s2sjax.train.run import Run

RIGHT = Text(source_justify="right", target_justify="right", start="first_target")
NOTEBOOK = Run(Addition(splits="independent"), RIGHT)
BACKWARD = replace(NOTEBOOK, text=replace(NOTEBOOK.text, source_order="reversed"))
ARMS = {
    "forward": NOTEBOOK,
    "deep": replace(NOTEBOOK, model=Model(encoder_layers=2, cell="gru")),
    "reversed": replace(BACKWARD, optim=Optimiser(learning_rate=1e-2)),
    "short": replace(NOTEBOOK, train=Training(epochs=20)),
}


def test_the_parameters_are_those_of_one_replica_of_the_first_arm():
    table = parameter_table(Ablation(ARMS, 10, 0))
    assert table.title == "Parameters of one replica of forward"
    assert table.rows[-1] == ("all", "", "147,085")
    assert ("encoder/cell/wx", "13 x 512", "6,656") in table.rows
    shown = sum(int(count.replace(",", "")) for _, _, count in table.rows[:-1])
    assert shown == 147_085


def test_the_plan_of_arms_of_one_length():
    plan = dict(plan_table(Ablation({"forward": NOTEBOOK, "reversed": BACKWARD}, 10, 0)).rows)
    assert plan == {
        "arms": "forward, reversed",
        "seeds": "10 (0 to 9), the same for every arm",
        "replicas": "20 = arms x seeds",
        "updates": "200 epochs x 40 = 8,000 each",
        "devices": "2 x cpu, of 2",
    }


def test_the_plan_of_arms_of_several_lengths():
    plan = dict(plan_table(Ablation(ARMS, 3, 7)).rows)
    assert plan["updates"] == "800 or 8,000 each"
    assert plan["seeds"] == "3 (7 to 9), the same for every arm"


def test_every_program_is_shown_with_its_arms_its_size_and_its_reason():
    ablation = Ablation(ARMS, 10, 0)
    table = program_table(ablation)
    assert table.title == "3 programs to train"
    gru = 3 * 128 * (13 + 128 + 128 + 128 + 13 + 128 + 3) + 3 * 128 + 129 * 13
    assert table.rows == (
        ("1", "forward, reversed", "147,085", "the first"),
        ("2", "deep", f"{gru:,}", "model.cell: lstm -> gru; model.encoder_layers: 1 -> 2"),
        ("3", "short", "147,085", "train.epochs: 200 -> 20"),
    )
    assert parameter_count(ARMS["deep"]) == gru
    one = program_table(Ablation({"forward": NOTEBOOK}, 1, 0))
    assert (one.title, one.rows) == (
        "1 program to train",
        (("1", "forward", "147,085", "the first"),),
    )


def test_what_was_read_from_files(tmp_path):
    (tmp_path / "train.tsv").write_text("a b c\tx y\na b c\tx\nno tab\na\tx y z\n" + "b\tx\n" * 3)
    (tmp_path / "dev.tsv").write_text("a q\tx x\n")
    task = Sentences(str(tmp_path / "train.tsv"), dev=str(tmp_path / "dev.tsv"), test_share=0.4)
    run = Run(
        task,
        Text("words", "characters", max_length=4),
        train=Training(tokens_per_batch=20, buckets=2),
    )
    made = pairs_table(Ablation({"arm": run}, 1, 0))
    assert made is not None
    table = dict(made.rows)
    formatter = run.formatter
    assert (
        table["vocabularies: words and characters"]
        == f"{len(formatter.source)} and {len(formatter.target)}"
    )
    assert table["unknown symbols of dev"] == "33.3% and 0.0%"  # q, of a, q and the end
    assert table["too long, left out of these"] == "1, 0, 0"
    assert "1 of 7 lines skipped" in table["train"]
    assert pairs_table(Ablation({"arm": NOTEBOOK}, 1, 0)) is None
