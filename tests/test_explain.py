"""A finished run explained: several programs, tasks and layouts; bad input in a line."""

import io
import re
import shutil
import signal
import sys
from dataclasses import replace

import explain
import pytest
from rich.console import Console

from s2sjax import cli
from s2sjax.config import Model, Text, Training
from s2sjax.data.tasks import Addition, Toy
from s2sjax.report.results import load_results
from s2sjax.study import ablation
from s2sjax.study.ablation import Ablation
from s2sjax.train.metrics import EXACT_MATCH
from s2sjax.train.run import Run
from s2sjax.train.trained import Trained
from s2sjax.train.workdir import Workdir

pytestmark = pytest.mark.usefixtures("compiled_quickly")

RUN = Run(
    Addition(digits=1, train=30, dev=8, test=12),
    model=Model(hidden_size=16),
    train=Training(epochs=6, batch_size=4, eval_every=3, checkpoint_every=6),
)
ARMS = {
    "forward": RUN,
    "reversed": replace(RUN, text=Text(source_order="reversed")),
    "minus": replace(RUN, task=replace(RUN.task, operator="-")),
    "own tests": replace(RUN, task=replace(RUN.task, splits="independent")),
    "copy": replace(RUN, task=Toy(symbols=3, max_length=3, train=15, dev=8, test=12)),
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A workdir of two seeds of every arm, in several programs."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    whole = Ablation(ARMS, seeds=2, first_seed=5)
    assert len(whole.groups) == 2
    with Workdir(folder, {"experiment": "test", "preset": "tiny", **whole.config}) as workdir:
        pairs = [("reversed", "forward")]
        console = Console(quiet=True)
        ablation.run("test", "tiny", whole, workdir, console, [EXACT_MATCH], pairs)
    return folder


def ended(monkeypatch, capsys, *arguments: object) -> tuple[int, str, str]:
    """Run the script: exit code, stdout, stderr."""
    monkeypatch.setattr(sys, "argv", ["script.py", *map(str, arguments)])
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(SystemExit) as end:
        cli.main(explain.explain)
    signal.signal(signal.SIGINT, before)
    printed = capsys.readouterr()
    return end.value.code, printed.out, printed.err


@pytest.fixture(scope="module")
def explained(finished, tmp_path_factory):
    """A copy of the run, explained, and what was printed."""
    folder = tmp_path_factory.mktemp("explained") / "run"
    shutil.copytree(finished, folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(explain, "LONGER", 40)
        patch.setattr(explain, "THRESHOLDS", (0.01, 0.99))
        patch.setattr(sys, "argv", ["explain.py", str(folder), "--arms", *ARMS])
        stream = io.StringIO()
        patch.setattr(explain, "make_console", lambda: Console(file=stream, width=200))
        explain.explain()
    return folder, stream.getvalue()


def test_a_run_is_explained_in_full(explained, finished):
    folder, out = explained
    report = (folder / "explain.md").read_text()
    assert report.startswith("# Why: test, tiny\n\n2 seeds of forward, reversed, minus")
    headings = [
        *("2-term, 1-digit '+' questions", "2-term, 1-digit '-' questions"),
        *("strings to copy", "## Edge cases", "## Every question"),
        *("## A digit more", "## When", "## Gradients", "## What the encoder knows"),
        "## The worst questions",
    ]
    places = [report.index(heading) for heading in headings]
    assert places == sorted(places)
    assert report.count("These are the scores in the run's records.") == 4  # each seed's own
    assert report.count("training losses equal the recorded ones") == 2
    assert "WARNING" not in report
    pictures = re.findall(r"\]\((explain_\w+\.png)\)", report)
    assert {"explain_carries.png", "explain_length_4.png", "explain_gradients.png"} <= {*pictures}
    assert "explain_probes.png" in pictures
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
    assert [row[2] for row in every[:3]] == ["55", "30", "25"]  # all, trained on, the others
    worst = cells("The worst questions of forward")
    right = [int(row[2].split()[0]) for row in worst]
    assert len(worst) == 12
    assert right == sorted(right)
    longer = cells("Trained on 1 digits, asked 2: exact match, 2-term, 1-digit '+'")
    assert longer[0][:2] == ["all", "40"]
    assert {row[0] for row in longer} == {"all", "1 + 2", "2 + 2"}
    looked = cells("Gradient at the digits of the same place")
    assert {row[0] for row in looked} == {"forward", "reversed", "minus", "own tests"}
    known = cells("Read from the encoder's last state, reversed and forward")
    assert [row[0] for row in known[:4]] == ["first u", "second u", "sum u", "carry u"]
    assert cells("What was predicted")[0][-1] == "open: too few seeds"


def test_arms_and_parts_are_chosen(explained, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "run"
    shutil.copytree(explained[0], folder)
    chosen = [folder, "--arms", "copy", "--no-gradients", "--no-probes", "--no-exhaustive"]
    code, _, err = ended(monkeypatch, capsys, *chosen)
    assert (code, err) == (0, "")
    report = (folder / "explain.md").read_text()
    assert re.findall("^## (.*)", report, re.MULTILINE) == [
        "The test set: strings to copy",
        "When",
        "The worst questions",
    ]
    assert "forward" not in report


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{run}/nowhere"], "nowhere/results.json does not exist: run the experiment"),
        (["{run}", "--arms", "forwards"], "has no arm 'forwards'; there are forward, reversed,"),
        (["{run}", "--no-gradient"], "--no-gradient"),
        ([], "Folder of a finished run"),
    ],
)
def test_what_cannot_be_explained_is_refused_in_a_line(
    finished, monkeypatch, capsys, arguments, message
):
    filled = [argument.format(run=finished) for argument in arguments]
    code, out, err = ended(monkeypatch, capsys, *filled)
    assert (code, out) == (78, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert message in err
    assert "::" not in err


def test_a_run_without_models_is_refused_in_a_line(finished, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    for name in ("checkpoints/2", "config.json", "results.json"):
        shutil.move(folder / name, tmp_path)
        code, out, err = ended(monkeypatch, capsys, folder)
        assert (code, out, err.count("\n")) == (78, "", 1)
        assert ("has no checkpoint yet" if name == "checkpoints/2" else "does not exist") in err
    assert not (folder / "explain.md").exists()


def test_control_c_ends_in_a_line_and_writes_no_report(finished, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)

    def stop(*_):
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(explain, "test_set", stop)
    code, _, err = ended(monkeypatch, capsys, folder, "--arms", "copy")
    assert (code, err.count("\n")) == (130, 1)
    assert err.startswith("stopped; explain.md was not written")
    assert not (folder / "explain.md").exists()


def test_scores_that_are_not_the_records_are_warned_of(finished):
    results = load_results(finished / "results.json")
    records = [
        {**r, "value": r["value"] + 0.25 * (r["split"] == "test")} for r in results["records"]
    ]
    trained = Trained.load(finished, ["forward"])
    run = explain.Finished(finished, {**results, "records": records}, trained)
    note = explain._agreement(run, run.kinds[0])
    assert note.startswith("WARNING: the run's records differ by up to 25.00 %")
