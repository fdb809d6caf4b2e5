"""What is about to run, told before it does."""

from dataclasses import replace

from s2sjax.ablation import Ablation
from s2sjax.config import Model, Optimiser, Run, Text, Training
from s2sjax.plan import parameter_count, parameter_table, plan_table, program_table
from s2sjax.taskconfig import Addition

NOTEBOOK = Run(Addition(splits="independent"), Text(justify="right", start="first_target"))
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


def test_every_program_is_told_with_its_arms_its_size_and_its_reason():
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
