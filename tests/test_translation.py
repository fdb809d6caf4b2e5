"""The four steps on a toy language: learnt, gone on with, streamed, searched, and well refused."""

import json
import random
import signal
from collections import Counter
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from s2sjax import checkpoint, translation
from s2sjax import translator as translator_module
from s2sjax.beam import Beam
from s2sjax.config import Model, Optimiser, Training, Translation
from s2sjax.decode import Sampling
from s2sjax.dropout import Rates
from s2sjax.errors import Interrupted, UserError
from s2sjax.preparation import Form, prepare
from s2sjax.serial import from_json, to_json
from s2sjax.taskconfig import Sentences
from s2sjax.textmetrics import Score
from s2sjax.train import Trainer
from s2sjax.translation import Scores, build, evaluate, train, update_program
from s2sjax.translator import VOCABULARIES, Translator
from s2sjax.unknown import replace_unknown

WORDS = {f"w{i}": f"v{i}" for i in range(8)}


def toy_lines(seed: int, n: int) -> list[str]:
    """Sentences word for word; a name now and then, each only once, stays as it is."""
    rng, lines = random.Random(seed), []
    for i in range(n):
        words = [rng.choice([*WORDS]) for _ in range(rng.randint(1, 5))]
        if i % 5 == 0:
            words[rng.randrange(len(words))] = f"name{seed}x{i}"
        lines.append(f"{' '.join(words)}\t{' '.join(WORDS.get(w, w) for w in words)}")
    return lines


def settings(folder: Path, **changed) -> Sentences:
    """The toy corpus, written to a folder."""
    for seed, (name, n) in enumerate({"train": 600, "dev": 30, "test": 40}.items()):
        lines = toy_lines(seed, n)
        if name == "train":
            lines[7:7] = ["", "no tab here", " ".join(["w1"] * 9) + "\tv1"]
        (folder / f"{name}.tsv").write_text("\n".join(lines) + "\n")
    paths = {name: str(folder / f"{name}.tsv") for name in ("train", "dev", "test")}
    given = {"longest": 8, "buckets": 2, "tokens_per_batch": 256}
    return Sentences(**{**paths, **given, **changed})


def toy_run(sentences: Sentences, **changed) -> Translation:
    model = Model(hidden_size=32, embed_dim=16, attention="dot", directions=2, dropout=0.1)
    training = Training(epochs=8, eval_every=4, checkpoint_every=4, show_every=8, batch_size=16)
    optim = Optimiser(learning_rate=2e-2, clip=1.0, schedule="cosine")
    return replace(Translation(sentences, model, optim, training), **changed)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("toy")


@pytest.fixture(scope="module")
def toy(folder):
    """The four steps as the README has them: run, prepared pairs, trainer, model, traces."""
    run = toy_run(settings(folder))
    prepared = prepare(run.sentences)
    trainer = build(run, prepared)
    traces = Counter()
    step = Trainer.train_step

    def traced(self, state, batch):
        traces[batch.examples.source.shape] += 1
        return step(self, state, batch)

    update_program.cache_clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "train_step", traced)
        translator = train(run, prepared, trainer, folder / "run")
    return run, prepared, trainer, translator, traces


def same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


# --- prepare ----------------------------------------------------------------------------------


def test_preparing_tells_all_that_was_left_out_and_learns_words_from_training_alone(toy):
    _, prepared, *_ = toy
    assert "2 of 603 lines skipped: blank (line 8); no tab (line 9)" in prepared.told["train"]
    assert prepared.told["pairs that are too long, left out"] == "1"
    assert len(prepared.lengths) == 600
    assert set(prepared.form.source.symbols[4:]) == set(WORDS)
    assert set(prepared.form.target.symbols[4:]) == set(WORDS.values())
    assert 0.03 < prepared.unknown[0] < 0.15
    assert len(prepared.buckets) == 2
    cells = {row[0]: row[1] for row in prepared.table().rows}
    assert cells["pairs to train on, of dev and of test"] == "600, 30, 40"


def test_without_files_dev_and_test_are_split_off_by_source(folder, toy):
    run = toy[0]
    asked = replace(run.sentences, dev=None, test=None, dev_share=0.1, test_share=0.2)
    prepared = prepare(asked)
    train_sources = {tuple(source) for source, _ in prepared.rows}
    assert len(prepared.dev) < len(prepared.test)
    for source, _ in [*prepared.dev, *prepared.test]:
        if not prepared.form.source.unknown(source):
            assert tuple(prepared.form.read(source)) not in train_sources
    assert prepare(asked).dev == prepared.dev


@pytest.mark.parametrize("unit", ["characters", "subwords"])
def test_other_units_prepare_and_their_vocabularies_are_read_back(toy, unit):
    size = {"source_size": 300, "target_size": 300, "longest": 60, "unit": unit}
    prepared = prepare(replace(toy[0].sentences, **size, source_order="reversed"))
    form = Form.from_json(prepared.form.to_json(), "x")
    assert form == prepared.form
    assert form.in_order("v1 v3") == "v1 v3"
    assert form.read("w1 w2")[:-1] == form.source.encode("w1 w2")[::-1]


def test_two_aligned_files_are_the_same_corpus(tmp_path, toy):
    run, prepared, *_ = toy
    for name in ("train", "dev"):
        lines = [line.split("\t") for line in toy_lines({"train": 0, "dev": 1}[name], 30)]
        for side, end in enumerate(("de", "en")):
            text = "".join(line[side] + "\n" for line in lines)
            (tmp_path / f"{name}.{end}").write_text(text)
    both = {n: f"{tmp_path / n}.de, {tmp_path / n}.en" for n in ("train", "dev")}
    asked = replace(run.sentences, **both, longest=5)
    found = prepare(asked)
    assert found.dev == prepared.dev
    assert len(found.lengths) == 30
    same(prepare(replace(asked, stream=True)).lengths, found.lengths)


# --- train ------------------------------------------------------------------------------------


def test_a_toy_language_is_learnt(toy):
    _, prepared, _, translator, _ = toy
    scores = evaluate(translator, prepared.test)
    known = [not prepared.form.target.unknown(right) for _, right in prepared.test]
    right = [w == t for w, (_, t) in zip(scores.written, prepared.test, strict=True)]
    assert sum(right) > 0.95 * sum(known)  # a name cannot be right
    assert scores.exact_match == sum(right) / len(right)
    assert scores.bleu.value > 80
    assert scores.loss < 0.3
    assert sum(bucket.n for bucket in scores.lengths) == 40
    assert "tok:none" in scores.bleu.signature


def test_each_shape_is_traced_once(toy):
    _, prepared, _, _, traces = toy
    assert traces == {(b.rows, b.source): 1 for b in prepared.buckets}


def interrupted_at(number: int, monkeypatch) -> None:
    """Have a signal come in while an update is on its way."""
    original, done = translation.update_program, Counter()

    def program(trainer):
        def update(*arguments):
            done["updates"] += 1
            if done["updates"] == number:
                signal.raise_signal(signal.SIGTERM)
            return original(trainer)(*arguments)

        return update

    monkeypatch.setattr(translation, "update_program", program)


@pytest.mark.parametrize("stream", [False, True])
def test_a_run_that_was_stopped_in_an_epoch_ends_as_if_it_never_had(
    toy, tmp_path, monkeypatch, stream
):
    run, prepared, trainer, translator, _ = toy
    if stream:
        run = replace(run, sentences=replace(run.sentences, stream=True))
        prepared = prepare(run.sentences)
        assert "600 pairs, 2 lines skipped" in prepared.told["train"]
        assert build(run, prepared) == trainer
    each = len(prepared.batches(0))
    with monkeypatch.context() as patch:
        interrupted_at(each + each // 2, patch)
        with pytest.raises(
            Interrupted, match=rf"update {each + each // 2} of {8 * each} \(epoch 2"
        ):
            train(run, prepared, trainer, tmp_path)
    assert checkpoint.latest(tmp_path / "checkpoints") == each + each // 2
    again = train(run, prepared, trainer, tmp_path)
    same(again.params, translator.params)
    told = (tmp_path / "metrics.jsonl").read_text()
    assert told == (Path(toy[0].sentences.train).parent / "run" / "metrics.jsonl").read_text()


def test_a_finished_run_is_not_trained_again(toy, folder):
    run, prepared, trainer, translator, _ = toy
    before = (folder / "run" / "metrics.jsonl").read_bytes()
    same(train(run, prepared, trainer, folder / "run").params, translator.params)
    assert (folder / "run" / "metrics.jsonl").read_bytes() == before


def test_early_stopping_gives_back_the_best(toy, tmp_path, monkeypatch):
    run, *_ = toy
    run = replace(
        run,
        sentences=replace(run.sentences, buckets=1),
        train=replace(run.train, eval_every=1, patience=2),
    )
    prepared = prepare(run.sentences)
    losses, seen = iter([1.0, 0.5, 0.7, 0.6]), []

    def scored(translator, pairs):
        seen.append(jax.device_get(translator.params))
        return Scores(Score(0.0, ""), Score(0.0, ""), 0.0, 1.0, next(losses), [], [])

    monkeypatch.setattr(translation, "evaluate", scored)
    trainer = build(run, prepared)
    translator = train(run, prepared, trainer, tmp_path)
    assert checkpoint.latest(tmp_path / "checkpoints") == 4 * len(prepared.batches(0))
    unseen = trainer.init(jax.random.key(0), jnp.float32(0), Rates())
    assert unseen.scored is unseen.params  # stopped before the dev set was ever looked at
    same(translator.params, seen[1])
    same(Translator.load(tmp_path).params, seen[1])


def test_a_loss_that_is_no_number_ends_in_one_line(toy, tmp_path, monkeypatch):
    run, prepared, trainer, *_ = toy
    update = update_program(trainer)

    def broken(state, total, batch):
        loss = float("nan") if int(state.update) == 2 else 1.0  # of the third update
        return *update(state, total, batch)[:2], jnp.float32(loss)

    monkeypatch.setattr(translation, "update_program", lambda _: broken)
    with pytest.raises(UserError, match=r"nan at update 3; nothing was saved yet") as caught:
        train(run, prepared, trainer, tmp_path)
    assert "\n" not in str(caught.value)


def test_weights_that_are_no_numbers_are_not_saved(toy, tmp_path, monkeypatch):
    run, prepared, trainer, *_ = toy
    update, last = update_program(trainer), len(prepared.batches(0))

    def broken(state, total, batch):
        """The last update of an epoch breaks a parameter, which no loss has seen yet."""
        state, *losses = update(state, total, batch)
        if int(state.update) == last:
            state = state.replace(params=jax.tree.map(lambda x: x + jnp.inf, state.params))
        return state, *losses

    monkeypatch.setattr(translation, "update_program", lambda _: broken)
    said = rf"^a parameter is no finite number after update {last}; nothing was saved yet"
    with pytest.raises(UserError, match=said):
        train(run, prepared, trainer, tmp_path)
    assert checkpoint.latest(tmp_path / "checkpoints") is None


def test_a_dev_loss_that_is_no_number_ends_in_one_line(toy, tmp_path, monkeypatch):
    run, prepared, trainer, *_ = toy
    run = replace(run, train=replace(run.train, eval_every=1))
    nothing = Scores(Score(0.0, ""), Score(0.0, ""), 0.0, 1.0, float("nan"), [], [])
    monkeypatch.setattr(translation, "evaluate", lambda *_: nothing)
    with pytest.raises(UserError, match=r"^the dev loss is nan after epoch 1; nothing was saved"):
        train(run, prepared, trainer, tmp_path)


# --- infer ------------------------------------------------------------------------------------


def test_a_saved_model_is_read_back_with_its_vocabularies(toy, folder):
    _, prepared, _, translator, _ = toy
    loaded = Translator.load(folder / "run")
    assert loaded.form == prepared.form
    assert loaded.buckets == prepared.buckets
    same(loaded.params, translator.params)
    assert [t.text for t in loaded.translate(["w1 w2", "", "  "])] == ["v1 v2", "", ""]


def test_a_translation_does_not_depend_on_the_others(toy):
    *_, prepared, _, translator, _ = toy
    texts = [source for source, _ in prepared.test]
    short = [text for text in texts if len(text.split()) <= 2]
    together = translator.translate(short)
    backwards = translator.translate(texts[::-1] + short)[-len(short) :]
    fewer = replace(translator, batch_size=5).translate(short)
    alone = [translator.translate([text])[0] for text in short[:4]]
    for others in (backwards, fewer, alone):
        for one, other in zip(together, others, strict=False):
            assert one.text == other.text
            assert one.score == pytest.approx(other.score, abs=1e-4)


def test_a_draw_is_a_function_of_seed_and_place(toy):
    *_, translator, _ = toy
    texts = ["w1 w2"] * 20
    drawn = [t.text for t in translator.translate(texts, Sampling(3.0), seed=3)]
    assert len(set(drawn)) > 5
    assert [t.text for t in translator.translate(texts[:9], Sampling(3.0), seed=3)] == drawn[:9]
    assert [t.text for t in translator.translate(texts, Sampling(3.0), seed=4)] != drawn


def test_a_beam_of_one_is_greedy_and_a_wider_one_is_in_order(toy):
    *_, prepared, _, translator, _ = toy
    texts = [source for source, _ in prepared.test if len(source.split()) <= 2]
    greedy = translator.translate(texts)
    assert [t.text for t in translator.translate(texts, Beam(1, 0.0))] == [t.text for t in greedy]
    for found in translator.translate(texts, Beam(3, 0.0)):
        scores = [h.score for h in found.hypotheses]
        assert len(scores) == 3
        assert scores == sorted(scores, reverse=True)
        best = found.hypotheses[0]
        assert best.alignment.shape == (len(best.symbols), len(found.source))
        np.testing.assert_allclose(best.alignment.sum(axis=1), 1, atol=1e-5)


def test_the_score_of_a_translation_is_what_it_gets_when_given(toy):
    *_, prepared, _, translator, _ = toy
    texts = [source for source, _ in prepared.test]
    found = translator.translate(texts)
    log_probs, symbols = translator.log_probs([*zip(texts, (t.text for t in found), strict=True)])
    known = [i for i, t in enumerate(found) if "<unk>" not in t.text and t.text]
    assert len(known) > 20
    for i in known:
        assert log_probs[i] == pytest.approx(found[i].score, abs=1e-4)
        assert symbols[i] == len(found[i].hypotheses[0].log_probs)


def test_unknown_words_come_from_where_the_model_looked(toy):
    *_, translator, _ = toy
    text = "w1 Somebody w3"
    (plain,) = translator.translate([text])
    (mended,) = translator.translate([text], replace_unknowns=True)
    assert plain.text == "v1 <unk> v3"
    assert plain.source == ("w1", "<unk>", "w3", "⏎")
    looks = plain.hypotheses[0].alignment
    words = ["w1", "somebody", "w3"]
    wanted = replace_unknown(plain.text.split(), [False, True, False], looks, words)
    assert mended.text == " ".join(wanted)


def test_the_alignment_is_in_the_order_of_the_text(toy):
    *_, translator, _ = toy
    turned = replace(translator, form=translator.form._replace(turned=True))
    (one,), (other,) = (t.translate(["w1 w2 w2 w1"]) for t in (translator, turned))
    assert one.source == other.source
    mirrored = translator.translate(["w1 w2 w2 w1"])[0].hypotheses[0].alignment[:, [3, 2, 1, 0, 4]]
    np.testing.assert_array_equal(other.hypotheses[0].alignment, mirrored)


def test_a_text_longer_than_any_is_read_whole(toy):
    *_, prepared, _, translator, _ = toy
    (found,) = translator.translate([" ".join(["w1"] * 11)])
    assert len(found.source) == 12
    most = 2 * (prepared.buckets[-1].target - 1)
    assert len(found.hypotheses[0].symbols) <= most


def test_long_texts_go_together_in_smaller_batches(toy, monkeypatch):
    translator, asked, found = toy[3], [], translator_module.search_program

    def program(*arguments):
        def run(params, source, keys, most):
            asked.append(source.shape)
            return found(*arguments)(params, source, keys, most)

        return run

    monkeypatch.setattr(translator_module, "search_program", program)
    widest = translator.buckets[-1].source
    twice = " ".join(["w1"] * (2 * widest - 1))
    assert len(translator.translate([twice] * 5)) == 5
    assert asked == [(translator.batch_size // 4, 2 * widest)] * 2


# --- what is refused --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"train": "a,b,c"}, "Sentences.train must be a file of pairs, or two"),
        ({"dev_share": 0.0}, "dev_share must be above 0"),
        ({"dev": "dev.tsv", "dev_share": 0.1}, "Sentences.dev has a file of its own"),
        ({"unit": "subwords", "cut": "blanks"}, "Sentences.cut and Sentences.lower_case are for"),
        ({"unit": "subwords", "source_size": 100}, "source_size must be at least 260"),
        ({"stream": True}, "Sentences.stream needs Sentences.dev and Sentences.test"),
        ({"longest": 0}, "longest must be at least 1"),
    ],
)
def test_settings_that_cannot_be(changed, said):
    with pytest.raises(UserError, match=said):
        Sentences(**changed)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"train": "nowhere.tsv"}, "nowhere.tsv cannot be read: No such file"),
        ({"train": "latin.tsv"}, "latin.tsv is no UTF-8 text: byte 2"),
        ({"train": "latin.tsv", "stream": True}, "is no UTF-8 text"),
        ({"train": "one.txt"}, "one.txt has no sentence pair"),
        ({"train": "train.tsv,one.txt"}, "train.tsv has 603 lines and one.txt 2"),
        ({"train": "train.tsv,one.txt", "stream": True}, "not aligned: only one has a line 3"),
        ({"train": "empty.tsv", "stream": True}, "empty.tsv has no sentence pair"),
        ({"longest": 1, "train": "long.tsv"}, "all 2 training pairs are too long"),
        ({"longest": 1, "train": "long.tsv", "stream": True}, r"too long \(Sentences.longest 1\)"),
        ({"min_count": 1000}, "no word occurs 1,000 times: lower min_count"),
        ({"sha256": "0" * 64}, "not as this run began with it"),
    ],
)
def test_files_that_cannot_be_used(toy, folder, monkeypatch, changed, said):
    monkeypatch.chdir(folder)
    (folder / "latin.tsv").write_bytes(b"a\xe4\tb\n")
    (folder / "one.txt").write_text("one\ntwo\n")
    (folder / "empty.tsv").touch()
    (folder / "long.tsv").write_text("a a\tb b\na a\tb b\n")
    asked = {**to_json(toy[0].sentences), **changed}
    with pytest.raises(UserError, match=said) as caught:
        prepare(Sentences(**asked))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("buckets", [[], [[1, 2]], [[1, 2, "3"]], 7])
def test_damaged_shapes_are_one_line(toy, folder, tmp_path, buckets):
    for name in ("config.json", VOCABULARIES):
        values = json.loads((folder / "run" / name).read_text())
        values |= {"buckets": buckets} if name == VOCABULARIES else {}
        (tmp_path / name).write_text(json.dumps(values))
    with pytest.raises(UserError, match=f"{VOCABULARIES} is damaged: give the workdir"):
        Translator.load(tmp_path)


def test_parts_that_do_not_go_together(toy, folder, tmp_path):
    run, prepared, trainer, translator, _ = toy
    with pytest.raises(UserError, match=r"Model.decoder repeat reads no symbols"):
        replace(run, model=Model(decoder="repeat"))
    with pytest.raises(UserError, match=r"Model.peeky"):
        replace(run, model=Model(peeky=True))
    with pytest.raises(UserError, match="prepared with other settings"):
        build(replace(run, sentences=replace(run.sentences, buckets=3)), prepared)
    with pytest.raises(UserError, match="holds another run"):
        train(replace(run, seed=1), prepared, trainer, folder / "run")
    with pytest.raises(UserError, match="give the workdir of a translation"):
        Translator.load(tmp_path)
    plain = replace(trainer, model=trainer.model.clone(config=Model(hidden_size=8)))
    with pytest.raises(UserError, match="replaced by what the model attends to"):
        replace(translator, trainer=plain).translate(["w1"], replace_unknowns=True)
    with pytest.raises(UserError, match="nothing to score"):
        evaluate(translator, [])


def test_a_damaged_workdir_is_told(toy, folder, tmp_path):
    for name in ("config.json", VOCABULARIES):
        (tmp_path / name).write_bytes((folder / "run" / name).read_bytes())
    with pytest.raises(UserError, match="has no checkpoint yet"):
        Translator.load(tmp_path)
    (tmp_path / VOCABULARIES).write_text('{"buckets": [[1, 2, 3]], "source": 1}')
    with pytest.raises(UserError, match="does not hold two vocabularies"):
        Translator.load(tmp_path)


def test_settings_go_to_json_and_back(toy):
    run = toy[0]
    assert from_json(Translation, to_json(run)) == run
