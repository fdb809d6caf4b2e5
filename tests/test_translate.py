"""translate.py and infer.py from the command line, and the speed of training on pairs."""

import io
import itertools
import json
import sys

import infer
import pytest
import speed
import translate

from s2sjax.errors import UserError

TINY = "--train.epochs 2 --train.eval-every 1 --model.hidden-size 16 --sentences.buckets 1"


def call(body, monkeypatch, capsys, *arguments, stdin=""):
    """A script's body on a command line; what it prints."""
    monkeypatch.setattr(sys, "argv", ["script", *arguments])
    piped = io.TextIOWrapper(io.BytesIO(stdin.encode(errors="surrogateescape")))
    monkeypatch.setattr(sys, "stdin", piped)
    body()
    return capsys.readouterr().out


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """A folder in which `smoke` has run, and what it printed."""
    folder = tmp_path_factory.mktemp("smoke")
    out = io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "argv", ["translate.py", "smoke", *TINY.split()])
        patch.setattr(sys, "stdout", out)
        translate.body()
    return folder / "runs" / "translate" / "smoke", out.getvalue()


def test_number_words_are_pairs_of_sentences():
    assert translate.number_words(20) == ("zwanzig", "twenty")
    assert translate.number_words(9321) == (
        "neun tausend drei hundert ein und zwanzig",
        "nine thousand three hundred twenty one",
    )
    assert translate.number_words(1070) == ("ein tausend siebzig", "one thousand seventy")


def test_smoke_trains_scores_and_reports(workdir):
    folder, out = workdir
    assert "epoch 2/2  training loss" in out
    report = (folder / "report.md").read_text()
    for told in (
        "Test: BLEU",
        "tok:none",
        "By length",
        "(bleu.png)",
        "(alignments.png)",
        "padding",
    ):
        assert told in report
    for name in ("bleu.png", "loss.png", "alignments.png"):
        assert (folder / name).stat().st_size > 5_000
    results = json.loads((folder / "results.json").read_text())
    found = {(r["split"], r["metric"]) for r in results["records"]}
    assert {("test", "BLEU"), ("test", "chrF"), ("dev", "BLEU"), ("train", "epoch_loss")} <= found


def test_lines_come_out_as_they_went_in(workdir, monkeypatch, capsys):
    folder = str(workdir[0])
    lines = "zwei hundert zwanzig\n\nein und dreißig\n"
    out = call(infer.infer, monkeypatch, capsys, folder, stdin=lines)
    assert len(out.split("\n")) == 4
    assert out.split("\n")[1] == ""
    out = call(infer.infer, monkeypatch, capsys, folder, "zwanzig", "--beam", "3", "--n-best", "2")
    scores = [float(line.split("\t")[0]) for line in out.splitlines()]
    assert scores == sorted(scores, reverse=True)
    assert len(scores) == 2


def test_draws_do_not_depend_on_how_many_lines_go_together(workdir, monkeypatch, capsys):
    arguments = (str(workdir[0]), "--temperature", "1", "--seed", "3")
    lines = "ein und dreißig\n" * 6
    together = call(infer.infer, monkeypatch, capsys, *arguments, stdin=lines)
    monkeypatch.setattr(infer, "islice", lambda texts, _: itertools.islice(texts, 2))
    assert call(infer.infer, monkeypatch, capsys, *arguments, stdin=lines) == together
    assert len(set(together.splitlines())) > 1


def test_lines_that_are_no_utf_8_are_refused_in_every_locale(workdir, monkeypatch, capsys):
    with pytest.raises(UserError, match=r"^line 2 is no UTF-8 text"):
        call(infer.infer, monkeypatch, capsys, str(workdir[0]), stdin="ein\ndrei\udcdfig\n")
    with pytest.raises(UserError, match="the text to translate is no UTF-8"):
        call(infer.infer, monkeypatch, capsys, str(workdir[0]), "drei\udcdfig")


def test_a_file_in_the_place_of_the_numbers_is_left_alone(tmp_path):
    path = tmp_path / "numbers.tsv"
    path.write_text("mine\tyours\n")
    with pytest.raises(UserError, match="holds something else: move it"):
        translate.write_numbers(path)
    assert path.read_text() == "mine\tyours\n"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("--temperature 1 --seed -1", "--seed must be from 0"),
        ("--n-best 2", "--n-best must be from 1 to --beam, which is not given"),
        ("--top-k 3", "need --temperature"),
        ("--beam 2 --temperature 1", "exclude each other"),
        ("--length-penalty 0", "--length-penalty needs --beam"),
        ("--beam 0", "--beam must be at least 1, not 0"),
        ("", "give the workdir of a translation"),
    ],
)
def test_one_line_says_what_is_wrong(tmp_path, monkeypatch, capsys, options, said):
    with pytest.raises(UserError, match=said) as caught:
        call(infer.infer, monkeypatch, capsys, str(tmp_path), *options.split())
    assert "\n" not in str(caught.value)


def test_a_file_that_is_missing_is_named(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"^train.tsv cannot be read: No such file"):
        call(translate.body, monkeypatch, capsys, "small")
    with pytest.raises(UserError, match=r"--sentences.trian"):
        call(translate.body, monkeypatch, capsys, "small", "--sentences.trian", "x")


@pytest.mark.slow
def test_the_speed_of_training_is_told(monkeypatch):
    small = translate.SMOKE
    settings = translate.replace(small.sentences, buckets=1)
    monkeypatch.setattr(translate, "BASE", translate.replace(small, sentences=settings))
    table = speed.measure_translation(batches=2, pairs=50)
    cells = {row[0]: row[1] for row in table.rows}
    assert float(cells["target symbols a second, end symbols counted"].replace(",", "")) > 0
    assert "padding, of source and of target positions" in cells
    prepared = speed.drawn_pairs(2_000)
    mean = prepared.lengths.mean(axis=0)
    assert abs(mean[0] - 13.4) < 0.3
    assert abs(mean[1] - 15.0) < 0.3
    assert (len(prepared.form.source), len(prepared.form.target)) == (8_000, 6_000)
