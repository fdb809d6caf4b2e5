"""ask.py: every finished run answers, typed or piped; order kept, bad lines alone are refused."""

import io
import os
import subprocess
import sys

import ask
import pytest
from rich.console import Console

from s2sjax import cli
from s2sjax.config import Model, Text, Training
from s2sjax.data.addition import Addition
from s2sjax.data.sentences import Sentences
from s2sjax.study.ablation import Ablation, run
from s2sjax.train.run import Run
from s2sjax.train.trained import Trained
from s2sjax.train.workdir import Workdir

pytestmark = pytest.mark.usefixtures("compiled_quickly")

WORDS = Text(source_unit="words", target_unit="words")
TINY = {"model": Model(hidden_size=8, embed_dim=4), "train": Training(epochs=1, eval_every=1)}


def made(folder, arms, seeds=2):
    """A finished run of some arms."""
    ablation = Ablation(arms, seeds, 0)
    config = {"experiment": "test", "preset": "", **ablation.config}
    with Workdir(folder, config) as workdir:
        run("test", "", ablation, workdir, Console(quiet=True), [], [])
    return folder


@pytest.fixture(scope="module")
def sums(tmp_path_factory):
    task = Addition(digits=1, train=20, dev=5, test=5)
    arms = {o: Run(task, Text(source_order=o), **TINY) for o in ("forward", "reversed")}
    return made(tmp_path_factory.mktemp("sums") / "run", arms)


@pytest.fixture(scope="module")
def sentences(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sentences")
    path = folder / "pairs.tsv"
    path.write_text("".join(f"w{i} v{i % 7} u\tx{i % 5} y\n" for i in range(80)), "utf-8")
    task = Sentences(str(path)).pinned()
    return made(folder / "run", {"forward": Run(task, WORDS, **TINY)})


def asked(monkeypatch, capsys, *arguments, lines=None):
    """What ask.py prints and says, and its exit code."""
    monkeypatch.setattr(sys, "argv", ["ask.py", *map(str, arguments)])
    if lines is not None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(lines)))
    with pytest.raises(SystemExit) as ended:
        cli.main(ask.ask_models)
    return *capsys.readouterr(), ended.value.code


def test_every_arm_answers_in_a_table_that_knows_what_is_right(monkeypatch, capsys, sums):
    out, err, code = asked(monkeypatch, capsys, sums, "1+2", " 3 + 4 ")
    assert (err, code) == ("", 0)
    assert "1+2 = 3" in out
    assert "3+4 = 7" in out
    assert out.count("of 2") == 4
    assert "forward" in out
    assert "reversed" in out


def test_lines_are_answered_in_their_order_and_a_bad_one_alone_is_refused(
    monkeypatch, capsys, sums
):
    lines = b"1+2\nx\n\n9 + 9\n\xff\n"
    out, err, code = asked(monkeypatch, capsys, sums, "--arm", "reversed", lines=lines)
    trained = Trained.load(sums, ["reversed"], [0])
    wanted = [best[0].text for best in trained.answer(["1+2", "9+9"])["reversed"][0]]
    assert out.splitlines() == [wanted[0], "", wanted[1]]
    assert [line.split(":")[1].strip() for line in err.splitlines()] == ["line 2", "line 5"]
    assert code == 1


def test_n_best_rows_carry_their_line_and_score(monkeypatch, capsys, sentences):
    arguments = (sentences, "--arm", "forward", "--beam", 3, "--n-best", 2, "--ensemble")
    out, err, code = asked(monkeypatch, capsys, *arguments, lines=b"w1 v1 u\n\nw2 u\n")
    rows = [line.split("\t") for line in out.splitlines()]
    assert [row[0] for row in rows] == sorted(row[0] for row in rows)
    assert {row[0] for row in rows} == {"1", "2", "3"}
    assert all(float(row[1]) <= 0 for row in rows)
    assert (err, code) == ("", 0)


def test_a_line_that_is_too_long_is_refused_and_unknown_symbols_are_named_once(
    monkeypatch, capsys, sentences
):
    """Faults 13, 15 and 17a."""
    lines = b"w1 new\n" + b"w1 " * 1_000 + b"\nnew w2 \xc3\xa9\n\xff\nw3 new\n"
    out, err, code = asked(monkeypatch, capsys, sentences, "--arm", "forward", lines=lines)
    trained = Trained.load(sentences, seeds=[0])
    wanted = [
        best[0].text for best in trained.answer(["w1 new", "new w2 é", "w3 new"])["forward"][0]
    ]
    assert out.splitlines() == wanted
    refused, bad, note = err.splitlines()
    assert refused.startswith(
        "error: line 2: a source of 1,001 symbols is too long: this run takes"
    )
    assert bad.startswith("error: line 4: no UTF-8 text")
    assert note == "note: read as unknown: new (line 1), é (line 3)"
    assert code == 1


def test_draws_depend_on_the_number_of_a_line_and_not_on_what_came_with_it(
    monkeypatch, capsys, sentences
):
    arguments = (sentences, "--arm", "forward", "--temperature", 5)
    lines = b"w1 v1 u\n" * 8
    together, _, _ = asked(monkeypatch, capsys, *arguments, lines=lines)
    monkeypatch.setattr(ask, "MOST", 3)
    assert asked(monkeypatch, capsys, *arguments, lines=lines)[0] == together
    assert len({*together.splitlines()}) > 3


def test_given_pairs_are_scored(monkeypatch, capsys, sentences):
    lines = b"w1 v1 u\tx1 y\nno tab\nw2 v2 u\tx2 y\n"
    arguments = (sentences, "--arm", "forward", "--score")
    out, err, code = asked(monkeypatch, capsys, *arguments, lines=lines)
    trained = Trained.load(sentences, seeds=[0])
    wanted = trained.score([("w1 v1 u", "x1 y"), ("w2 v2 u", "x2 y")])["forward"]
    rows = [line.split("\t") for line in out.splitlines()]
    assert [float(row[0]) for row in rows] == pytest.approx(wanted.log_probs[0], abs=1e-3)
    assert [row[1] for row in rows] == ["3", "3"]
    assert "line 2" in err
    assert code == 1


def test_a_sentence_without_a_known_answer_is_answered_all_the_same(monkeypatch, capsys, sentences):
    out, err, code = asked(monkeypatch, capsys, sentences, "w1 never [/] \x1b[2J seen")
    assert "w1 never [/] \\x1b[2J seen" in out
    assert "\x1b" not in out + err
    assert "read as unknown: never (line 1), [ (line 1)" in err
    assert (err.count("\n"), code) == (1, 0)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--arm", "backward"], "has no arm 'backward'; there are forward, reversed"),
        (["--seed", "7"], "has no seed 7; there are 0, 1"),
        (["--score"], "need --arm"),
        (["--beam", "2", "--temperature", "1"], "exclude each other"),
        (["--arm", "forward", "--n-best", "2"], "--n-best must be from 1 to --beam"),
        (["--top-k", "3"], "need --temperature"),
        (["--arm", "forward", "--replace-unknown"], "no attention"),
    ],
)
def test_what_does_not_go_together_is_refused_in_a_line(monkeypatch, capsys, sums, arguments, said):
    out, err, code = asked(monkeypatch, capsys, sums, *arguments, lines=b"1+1\n")
    assert (out, code) == ("", 78)
    assert said in err
    assert err.count("\n") == 1


def test_an_answer_comes_as_soon_as_the_input_pauses(sums):
    """A program that writes a line and waits for its answer gets it before the end of the file."""
    command = [sys.executable, ask.__file__, str(sums), "--arm", "forward"]
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command, stdin=pipe, stdout=pipe, text=True, env=os.environ | {"COLUMNS": "200"}
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for question in ("1+2", "3+4"):
            process.stdin.write(f"{question}\n")
            process.stdin.flush()
            assert process.stdout.readline().endswith("\n")
        process.stdin.close()
        assert process.wait() == 0
