"""A finished run asked and explained: several programs, tasks and layouts; bad input in a line."""

import re
import shutil
import signal
import sys
from dataclasses import replace

import ask
import explain
import numpy as np
import pytest
from rich.console import Console

from s2sjax import ablation, cli, probes, trained
from s2sjax.ablation import Ablation
from s2sjax.config import Model, Run, Text, Training
from s2sjax.metrics import HEADLINE
from s2sjax.results import dump_results, load_results, values
from s2sjax.runlog import Workdir
from s2sjax.taskconfig import Addition, Toy
from s2sjax.trained import load

RUN = Run(
    Addition(digits=1, train=30, dev=8, test=12),
    model=Model(hidden_size=16),
    train=Training(epochs=6, batch_size=4, eval_every=3, checkpoint_every=6),
)
ARMS = {
    "forward": RUN,
    "reversed": replace(RUN, text=Text(source_order="reversed")),
    "minus": replace(RUN, task=replace(RUN.task, operator="-")),
    "repeat": replace(
        RUN,
        task=replace(RUN.task, splits="independent"),
        text=Text(justify="left", start="nothing", source_eos=False, target_eos=False),
        model=Model(hidden_size=8, decoder="repeat"),
    ),
    "copy": replace(RUN, task=Toy(symbols=3, max_length=3, train=15, dev=8, test=12)),
    "backwards": replace(RUN, task=Toy("reverse", 3, max_length=3, train=15, dev=8, test=12)),
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A workdir of two seeds of every arm, in several programs."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    whole = Ablation(ARMS, seeds=2, first_seed=5)
    assert len(whole.groups) == 3
    with Workdir(folder, {"experiment": "test", "preset": "tiny", **whole.config}) as workdir:
        pairs = [("reversed", "forward")]
        console = Console(quiet=True)
        ablation.run("test", "tiny", whole, workdir, console, [HEADLINE], pairs)
    return folder


def ended(monkeypatch, capsys, body, *arguments: object) -> tuple[int, str, str]:
    """Run a script's body: exit code, what it printed, what it complained of."""
    monkeypatch.setattr(sys, "argv", ["script.py", *map(str, arguments)])
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(SystemExit) as end:
        cli.main(body)
    signal.signal(signal.SIGINT, before)
    said = capsys.readouterr()
    return end.value.code, said.out, said.err


# --- the models -------------------------------------------------------------------------------


def questions_of(models) -> dict[str, list]:
    return {arm: [own["test"] for own in models.pairs(arm)] for arm in models.arms}


def test_answers_score_what_the_records_say(finished):
    models = load(finished)
    assert list(models.arms) == list(ARMS)
    results = load_results(finished / "results.json")
    written = probes.ask(models, questions_of(models))
    assert list(written) == list(ARMS)
    for arm, of in written.items():
        assert of.right.mean(axis=1).tolist() == pytest.approx(values(results, arm, HEADLINE)), arm
        by_text = [
            [own == gold for own, (_, gold) in zip(answers, pairs, strict=True)]
            for answers, pairs in zip(of.answers, of.pairs, strict=True)
        ]
        if ARMS[arm].text.justify is None:  # justified answers may have their spaces wrong
            assert of.right.tolist() == by_text
    assert 0 < np.mean([of.right.mean() for of in written.values()]) < 1


def test_answers_do_not_depend_on_what_else_is_asked(finished, monkeypatch):
    models = load(finished)
    asked = questions_of(models)
    everything, forced = models.decode(asked), models.force(asked)
    few = load(finished, ["reversed", "copy"])
    assert [*few.arms] == ["reversed", "copy"]
    monkeypatch.setattr(trained, "BATCH", 5)
    for arm in few.arms:
        alone = few.decode({arm: asked[arm]})[arm]
        for x, y in zip(alone, everything[arm], strict=True):
            np.testing.assert_allclose(x, y, atol=1e-5)
        np.testing.assert_allclose(few.force({arm: asked[arm]})[arm], forced[arm], atol=1e-5)
        one = few.decode({arm: [pairs[:1] for pairs in asked[arm]]})[arm]
        np.testing.assert_array_equal(one.tokens, everything[arm].tokens[:, :1])


def test_a_right_answer_is_as_likely_forced_as_free(finished):
    models = load(finished)
    asked = questions_of(models)
    answers, forced = models.decode(asked), models.force(asked)
    for arm, of in answers.items():
        np.testing.assert_allclose(forced[arm][of.right], of.log_probs.sum(-1)[of.right], atol=1e-4)
        assert (forced[arm] < 0).all()


# --- ask --------------------------------------------------------------------------------------


def test_arms_of_a_task_answer_and_the_others_are_left_out(finished, monkeypatch, capsys):
    code, out, err = ended(monkeypatch, capsys, ask.ask, finished, "1 + 2", "abc", "7-9")
    assert (code, err) == (0, "")
    assert [*re.findall(r"\S+ = \S+", out)] == ["1+2 = 3", "abc = abc", "abc = cba", "7-9 = -2"]
    rows = [line.split()[1] for line in out.splitlines() if line.startswith("│ ")]
    assert rows == ["forward", "reversed", "repeat", "copy", "backwards", "minus"]
    assert "answer, seed 5" in out
    assert "of 2" in out
    code, out, _ = ended(monkeypatch, capsys, ask.ask, finished, "1+2", "--seed", 6)
    assert "answer, seed 6" in out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["x"], "'x' is no question of this run: it asks for 2 numbers of at most 1 digits"),
        (["x"], "; or 'x' has characters outside the alphabet"),
        (["1+1", "12+1"], "'12+1' is no question"),
        (["1+1", "--seed", "4"], "seed 4 was not run; there are 5 to 6"),
    ],
)
def test_what_cannot_be_asked_is_refused_in_a_line(finished, monkeypatch, capsys, arguments, said):
    code, out, err = ended(monkeypatch, capsys, ask.ask, finished, *arguments)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert said in err


# --- explain ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def explained(finished, tmp_path_factory):
    """A copy of the run, explained, and what was printed."""
    folder = tmp_path_factory.mktemp("explained") / "run"
    shutil.copytree(finished, folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(explain, "LONGER", 40)
        patch.setattr(explain, "THRESHOLDS", (0.01, 0.99))
        patch.setattr(sys, "argv", ["explain.py", str(folder), "--arms", *ARMS])
        lines = []
        patch.setattr(explain, "make_console", lambda: Console(file=Lines(lines), width=200))
        explain.explain()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    return folder, "".join(lines)


class Lines:
    """A stream that keeps what is written."""

    def __init__(self, lines: list[str]):
        self.write, self.flush = lines.append, lambda: None


def test_a_run_is_explained_in_full(explained, finished):
    folder, out = explained
    report = (folder / "explain.md").read_text()
    assert report.startswith("# Why: test, tiny\n\n2 seeds of forward, reversed, minus")
    headings = [
        *("2-term, 1-digit '+' questions", "2-term, 1-digit '-' questions"),
        *("strings to copy", "strings to reverse", "## Edge cases", "## Every question"),
        *("## A digit more", "## When", "## Gradients", "## The worst questions"),
    ]
    places = [report.index(heading) for heading in headings]
    assert places == sorted(places)
    assert report.count("These are the scores in the run's records.") == 5  # repeat: its own seeds'
    assert "training losses equal the recorded ones" in report
    assert "WARNING" not in report
    pictures = re.findall(r"\]\((explain_\w+\.png)\)", report)
    assert {"explain_carries.png", "explain_length_4.png", "explain_gradients.png"} <= {*pictures}
    assert len(set(pictures)) == len(pictures)
    for picture in pictures:
        assert (folder / picture).read_bytes().startswith(b"\x89PNG")
    for title in re.findall(r"### (.*)", report):
        assert title in out
    assert "\x1b" not in out


def test_explaining_leaves_the_run_as_it_was(explained, finished):
    folder, _ = explained
    ours = {path.name for path in folder.iterdir()} - {path.name for path in finished.iterdir()}
    assert all(name.startswith("explain") for name in ours)
    for path in finished.rglob("*"):
        if path.is_file():
            assert (folder / path.relative_to(finished)).read_bytes() == path.read_bytes()


def test_the_tables_agree_with_each_other(explained):
    report = (explained[0] / "explain.md").read_text()

    def cells(title: str) -> list[list[str]]:
        table = report.split(f"### {title}")[1].split("\n\n")[1]
        return [[c.strip() for c in line.split("|")[1:-1]] for line in table.splitlines()[2:]]

    chains = cells("By chain of carries: exact match, free-running, 2-term, 1-digit '+'")
    assert [row[0] for row in chains] == ["0", "1"]
    assert sum(int(row[1]) for row in chains) == 12
    every = cells("Every question there is, exact match, 2-term, 1-digit '+'")
    assert [row[1:3] for row in every[:3]] == [
        ["all", "55"],
        ["trained on", "30"],
        ["never trained on", "25"],
    ]
    worst = cells("The worst questions of forward")
    right = [int(row[2].split()[0]) for row in worst]
    assert len(worst) == 12
    assert right == sorted(right)
    longer = cells("Trained on 1 digits, asked 2: exact match, 2-term, 1-digit '+'")
    assert longer[0][:2] == ["all", "40"]
    assert {row[0] for row in longer} == {"all", "1 + 2", "2 + 2"}
    looked = cells("Gradient at the digits of the same place")
    assert {row[0] for row in looked} == {"forward", "reversed", "minus", "repeat"}


def test_arms_and_parts_are_chosen(finished, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    chosen = [folder, "--arms", "copy", "--no-gradients", "--no-exhaustive"]
    code, _, err = ended(monkeypatch, capsys, explain.explain, *chosen)
    assert (code, err) == (0, "")
    report = (folder / "explain.md").read_text()
    assert re.findall("^## (.*)", report, re.MULTILINE) == [
        "The test set: strings to copy",
        "When",
        "The worst questions",
    ]
    assert "forward" not in report


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["{run}/nowhere"], "nowhere/results.json does not exist: run the experiment"),
        (["{run}", "--arms", "forwards"], "has no arm 'forwards'; there are forward, reversed,"),
        (["{run}", "--no-gradient"], "--no-gradient"),
        ([], "Folder of a finished run"),
    ],
)
def test_what_cannot_be_explained_is_refused_in_a_line(
    finished, monkeypatch, capsys, arguments, said
):
    filled = [argument.format(run=finished) for argument in arguments]
    code, out, err = ended(monkeypatch, capsys, explain.explain, *filled)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert said in err
    assert "::" not in err


def test_an_unfinished_run_is_refused_in_a_line(finished, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    shutil.rmtree(folder / "checkpoints" / "2")
    for body in (explain.explain, ask.ask):
        code, out, err = ended(monkeypatch, capsys, body, folder)
        assert (code, out) == (2, "")
        assert "checkpoints/2 has no checkpoint of the last epoch, 6" in err
    (folder / "results.json").unlink()
    code, _, err = ended(monkeypatch, capsys, explain.explain, folder)
    assert (code, err.count("\n")) == (2, 1)
    assert "results.json does not exist" in err
    assert not (folder / "explain.md").exists()


def test_a_run_of_something_else_is_named(finished, tmp_path, monkeypatch, capsys):
    results = load_results(finished / "results.json")
    path = tmp_path / "results.json"
    path.write_text(dump_results({**results, "config": {"model": "another"}}))
    for body in (explain.explain, ask.ask):
        code, out, err = ended(monkeypatch, capsys, body, tmp_path)
        assert (code, out) == (2, "")
        assert err == f"error: {path}: its config is not that of an ablation\n"


def test_control_c_ends_in_a_line_and_writes_no_report(finished, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)

    def stop(*_):
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(explain, "edges", stop)
    code, _, err = ended(monkeypatch, capsys, explain.explain, folder, "--arms", "copy")
    assert (code, err.count("\n")) == (130, 1)
    assert err.startswith("stopped; explain.md was not written")
    assert not (folder / "explain.md").exists()


def test_scores_and_losses_that_are_not_the_records_are_warned_of(finished, monkeypatch):
    results = load_results(finished / "results.json")
    records = [
        {**r, "value": r["value"] + 0.25} if (r["metric"], r["split"]) == (HEADLINE, "test") else r
        for r in results["records"]
    ]
    models = load(finished, ["forward"])
    run = explain.Finished(finished, {**results, "records": records}, models)
    said = explain._agreement(run, run.kinds[0])
    assert said.startswith("WARNING: the run's records differ by up to 25.00 %")
