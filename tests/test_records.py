"""What is recorded of generated questions and of sentence pairs, which are arms like any others."""

import shutil
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from s2sjax.config import Model, Text, Training
from s2sjax.data.tasks import Sentences, Toy
from s2sjax.report.results import by_seed, load_results
from s2sjax.study import ablation as ablation_module
from s2sjax.study.ablation import Ablation, is_extension, run
from s2sjax.study.group import Group
from s2sjax.study.records import accept_references, length_records, text_records
from s2sjax.train.evaluate import Evaluation
from s2sjax.train.metrics import EXACT_MATCH, Count
from s2sjax.train.run import Run
from s2sjax.train.workdir import Workdir

pytestmark = pytest.mark.usefixtures("compiled_quickly")

METRICS = ("BLEU", "chrF", "perplexity", "symbol_error_rate", EXACT_MATCH)
WORDS = {"ein": "a", "Hund": "dog", "und": "and", "Katze": "cat", "laufen": "run", "heute": "today"}


@pytest.fixture(scope="module")
def arms(tmp_path_factory) -> dict[str, Run]:
    """Both orders of the source, on a file of pairs whose first dev source has two targets."""
    folder, words = tmp_path_factory.mktemp("pairs"), [*WORDS]
    lines = []
    for i in range(90):
        source = [words[(i * (k + 1) + i // 7) % 6] for k in range(1 + i % 5)]
        lines.append(f"{' '.join(source)}\t{' '.join(WORDS[w] for w in source)}\n")
    (folder / "train.tsv").write_text("".join(lines))
    (folder / "dev.tsv").write_text("ein Hund\ta dog\nein Hund\tdog today run\nheute\ttoday\n")
    task = Sentences(str(folder / "train.tsv"), dev=str(folder / "dev.tsv"), test_share=0.3)
    forward = Run(
        task.pinned(),
        Text("words", "words"),
        Model(hidden_size=4, embed_dim=3),
        train=Training(
            epochs=2, tokens_per_batch=60, buckets=2, eval_every=1, checkpoint_every=1, shown=2
        ),
    )
    backward = replace(forward, text=replace(forward.text, source_order="reversed"))
    return {"forward": forward, "reversed": backward}


def complete(folder, arms):
    ablation = Ablation(arms, 2, 0)
    config = {"experiment": "test", "preset": "pairs", **ablation.config}
    pairs, console = [("reversed", "forward")], Console(quiet=True)
    with Workdir(folder, config, is_extension) as workdir:
        return run("test", "pairs", ablation, workdir, console, METRICS, pairs)


@pytest.fixture(scope="module")
def finished(arms, tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished") / "run"
    return folder, complete(folder, arms)


def test_arms_of_sentences_are_one_program_and_every_seed_has_every_score(arms, finished):
    assert len(Ablation(arms, 2, 0).groups) == 1
    records = finished[1]["records"]
    found: dict[tuple[str, str], set[str]] = {}
    for r in records:
        found.setdefault((r["arm"], r["split"]), set()).add(r["metric"])
        assert np.isfinite(r["value"])
    for arm in arms:
        assert {*METRICS, "loss"} <= found[arm, "test"]
        assert {"BLEU", "perplexity", "loss", EXACT_MATCH} <= found[arm, "dev"]
        assert found[arm, "train"] == {"epoch_loss"}  # training pairs are not scored again
    one = [(r["arm"], r["seed"], r["split"], r["epoch"], r["metric"]) for r in records]
    assert len(set(one)) == len(one)
    assert {(arm, seed) for arm, seed, *_ in one} == {(arm, s) for arm in arms for s in (0, 1)}


def test_scores_of_sentences_agree_with_each_other(arms, finished):
    results = finished[1]
    group = Group(arms, 2, 0)
    lengths = [len(source.split()) for source, _ in group.rows("test")[0].pairs]
    named = {r["metric"] for r in results["records"] if r["metric"].startswith("BLEU/length_")}
    ranges = sorted(tuple(map(int, name.split("_")[1].split("-"))) for name in named)
    assert (ranges[0][0], ranges[-1][1]) == (min(lengths), max(lengths))
    assert all(low == high + 1 for (_, high), (low, _) in pairwise(ranges))
    for arm in arms:
        loss, perplexity = (by_seed(results, arm, m) for m in ("loss", "perplexity"))
        assert perplexity == pytest.approx({seed: np.exp(x) for seed, x in loss.items()})
    compared = [(c["a"], c["b"], c["metric"], c["n"]) for c in results["comparisons"]]
    assert compared == [("reversed", "forward", metric, 2) for metric in METRICS]


def test_a_run_on_sentences_killed_within_ends_like_one_that_was_not(arms, finished, tmp_path):
    real = ablation_module.fit

    def fit(*arguments, on_epoch, **settings):
        def on_epoch_and_break(this):
            on_epoch(this)
            if this.epoch == 2:
                raise KeyboardInterrupt

        return real(*arguments, on_epoch=on_epoch_and_break, **settings)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ablation_module, "fit", fit)
        with pytest.raises(KeyboardInterrupt):
            complete(tmp_path, arms)
    complete(tmp_path, arms)
    assert load_results(tmp_path / "results.json")["records"] == finished[1]["records"]
    metrics = (folder / "metrics.jsonl" for folder in (tmp_path, finished[0]))
    assert len({path.read_bytes() for path in metrics}) == 1


def test_a_file_that_moved_is_the_same_run(arms, finished, tmp_path, monkeypatch):
    folder, (old, new) = tmp_path / "run", (tmp_path / name for name in ("train.tsv", "moved.tsv"))
    shutil.copytree(finished[0], folder)
    old.write_bytes(Path(arms["forward"].task.train).read_bytes())

    def named(path):
        return {
            arm: replace(run, task=replace(run.task, train=str(path))) for arm, run in arms.items()
        }

    assert complete(folder, named(old)) == load_results(folder / "results.json")
    (folder / "results.json").unlink()
    old.rename(new)
    results = complete(folder, named(new))
    assert results["records"] == finished[1]["records"]
    assert results["config"]["arms"]["forward"]["task"]["train"] == str(new)
    monkeypatch.setattr(ablation_module, "train_group", None)  # it is finished
    assert complete(folder, arms) == results


# --- one by one, of answers made by hand ---------------------------------------------------


def written(group: Group, split: str, texts: list[str], right: list[bool]) -> Evaluation:
    """The evaluation of a group all of whose replicas wrote the same."""
    formatter = group.formatter(next(iter(group.arms)))
    rows = [formatter.target_ids(text)[1:] for text in texts]
    ids = np.full((len(rows), max(map(len, rows)) + 1), -1, np.int32)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = row
    n = len(group.replicas)
    sums = np.full(n, float(sum(right)))
    return Evaluation(
        {EXACT_MATCH: Count(sums, np.full(n, float(len(right))))},
        np.stack([ids] * n),
        np.stack([np.array(right)] * n),
    )


def test_any_of_several_right_answers_counts(arms):
    group = Group(arms, 2, 0)
    rows = group.rows("dev")
    assert [source for source, _ in rows[0].pairs] == ["ein Hund", "heute"]
    for text, share in (("dog today run", 0.5), ("a dog", 0.5), ("dog today", 0.0)):
        evaluation = written(group, "dev", [text, "a"], [text == "a dog", False])
        counted = accept_references(group, evaluation, "dev", rows)
        assert counted.right.tolist() == [[share > 0, False]] * 4
        assert [counted.values(replica)[EXACT_MATCH] for replica in range(4)] == [share] * 4


def test_right_texts_have_the_best_scores_at_every_length(arms):
    group = Group(arms, 1, 0)
    rows = group.rows("test")
    evaluation = written(group, "test", [t for _, t in rows[0].pairs], [True] * len(rows[0].pairs))
    records = [*text_records(group, 3, evaluation, rows)]
    assert {(r["arm"], r["epoch"], r["split"]) for r in records} == {
        *((arm, 3, "test") for arm in arms)
    }
    best = {"symbol_error_rate": 0}
    assert len({r["metric"] for r in records}) > 5  # of all, and of several ranges
    for r in records:
        short = r["metric"].startswith("BLEU/") and int(r["metric"][-1]) < 4  # BLEU needs four
        assert r["value"] == pytest.approx(0 if short else best.get(r["metric"], 100)), r


def test_generated_answers_are_scored_at_every_length():
    task = Toy(symbols=4, min_length=2, max_length=4, train=20, dev=10, test=30)
    group = Group({"arm": Run(task)}, 2, 0)
    rows = group.rows("test")
    sources = [source for source, _ in rows[0].pairs]
    right = [len(source) != 3 for source in sources]
    records = length_records(group, 5, written(group, "test", sources, right), rows)
    values = {(r["seed"], r["metric"]): r["value"] for r in records}
    lengths = {len(source) for source in sources}
    assert values == {
        (seed, f"{EXACT_MATCH}/length_{n}"): float(n != 3) for seed in (0, 1) for n in lengths
    }
