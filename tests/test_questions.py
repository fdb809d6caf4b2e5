"""Files of questions: read, split as Saitoh splits them, and every way they can be wrong."""

import hashlib
import itertools
import re
from pathlib import Path

import jax
import numpy as np
import pytest

from s2sjax.errors import UserError
from s2sjax.taskconfig import Addition
from s2sjax.tasks import make_task
from s2sjax.tasks.addition import AdditionTask
from s2sjax.tasks.questions import file_hash, read_questions, saitoh_split

OPERANDS = AdditionTask(Addition()).operands_of
PAIRS = [(a, b) for a, b in itertools.product(range(40), range(0, 1_000, 77)) if a <= b]


def line(a: int, b: int) -> str:
    """As in Saitoh's addition.txt: filled with spaces on the right."""
    return f"{a}+{b}".ljust(7) + "_" + str(a + b).ljust(4)


def written(folder: Path, lines: list[str], end: str = "\n") -> str:
    path = folder / "addition.txt"
    path.write_bytes("".join(text + end for text in lines).encode())
    return str(path)


def good(folder: Path, n: int = 50) -> str:
    return written(folder, [line(a, b) for a, b in PAIRS[:n]])


def with_file(path: str, n: int = 50, **settings) -> Addition:
    sizes = {"train": n - n // 10, "dev": 20, "test": n // 10}
    return Addition(**({"file": path, "operands": "any_length"} | sizes | settings))


def refused(message: str):
    return pytest.raises(UserError, match=f"^{re.escape(message)}$")


# --- a good file -----------------------------------------------------------------------------


def test_a_line_is_as_in_saitohs_file():
    assert line(16, 75) == "16+75  _91  "


def test_questions_are_read_in_their_order(tmp_path):
    path = good(tmp_path)
    assert read_questions(path, None, OPERANDS) == PAIRS[:50]
    assert read_questions(path, file_hash(path), OPERANDS) == PAIRS[:50]


def test_the_hash_is_that_of_the_content(tmp_path):
    path = good(tmp_path)
    assert file_hash(path) == hashlib.sha256(Path(path).read_bytes()).hexdigest()


def as_saitoh(questions: list[str]) -> tuple[list[str], list[str]]:
    """The lines of his load_data that split, on the legacy generator."""
    state = np.random.RandomState()
    x = np.array(questions)

    indices = np.arange(len(x))
    state.seed(1984)
    state.shuffle(indices)
    x = x[indices]

    split_at = len(x) - len(x) // 10
    return x[:split_at].tolist(), x[split_at:].tolist()


@pytest.mark.parametrize("n", [10, 19, 20, 101, 50_000])
def test_the_split_is_saitohs(n):
    questions = list(map(str, range(n)))
    train, test = saitoh_split(questions)
    assert (train, test) == as_saitoh(questions)
    assert len(test) == n // 10
    assert sorted(train + test) == sorted(questions)


def test_the_split_stays_what_it_was():
    # numpy.random.seed(1984); numpy.random.shuffle(numpy.arange(20))
    order = [3, 12, 16, 11, 4, 13, 7, 17, 1, 0, 19, 9, 2, 5, 14, 10, 18, 6, 8, 15]
    train, test = saitoh_split(range(20))
    assert train + test == order


def test_the_generator_that_is_everyones_is_left_alone():
    before = np.random.get_state()[1].tolist()  # noqa: NPY002
    saitoh_split(range(50))
    assert np.random.get_state()[1].tolist() == before  # noqa: NPY002


def test_the_task_asks_the_files_questions_in_that_split(tmp_path):
    split = make_task(with_file(good(tmp_path))).splits(jax.random.key(0))
    expected = as_saitoh([f"{a}+{b}" for a, b in PAIRS[:50]])
    assert [q for q, _ in split["train"]] == expected[0]
    assert [q for q, _ in split["test"]] == expected[1]
    for question, answer in itertools.chain(*split.values()):
        a, b = question.split("+")
        assert answer == str(int(a) + int(b))


def test_every_seed_has_the_same_questions(tmp_path):
    task = make_task(with_file(good(tmp_path)))
    assert task.splits(jax.random.key(0)) == task.splits(jax.random.key(1))


@pytest.mark.parametrize("operands", ["uniform", "any_length"])
def test_dev_questions_are_drawn_and_not_in_the_file_either_way_round(tmp_path, operands):
    every = list(itertools.combinations_with_replacement(range(10), 2))  # 55
    path = written(tmp_path, [line(b, a) for a, b in every[::2]])
    config = with_file(path, 28, digits=1, dev=27, operands=operands)
    dev = [question for question, _ in make_task(config).splits(jax.random.key(0))["dev"]]
    names = {tuple(sorted(map(int, question.split("+")))) for question in dev}
    assert names == set(every[1::2])  # all that are left, each once
    assert len(dev) == 27


def test_dev_questions_depend_on_the_file_only_where_it_has_them(tmp_path):
    small = make_task(with_file(good(tmp_path))).splits(jax.random.key(0))["dev"]
    large = make_task(with_file(good(tmp_path, 60), 60)).splits(jax.random.key(0))["dev"]
    assert small == large


def test_more_dev_questions_than_are_left_are_refused(tmp_path):
    every = list(itertools.combinations_with_replacement(range(10), 2))
    path = written(tmp_path, [line(a, b) for a, b in every[:40]])
    task = make_task(with_file(path, 40, digits=1, dev=16))
    with pytest.raises(UserError, match=r"^16 distinct 2-term, 1-digit '\+' questions .* only 15"):
        task.splits(jax.random.key(0))


def test_a_file_of_another_shape_of_question_is_read(tmp_path):
    lines = [f"{a}+{b}+{a + b}_{2 * (a + b)}" for a, b in PAIRS[:20]]
    config = with_file(written(tmp_path, lines), 20, terms=3, digits=4)
    split = make_task(config).splits(jax.random.key(0))
    assert {q for q, _ in split["train"] + split["test"]} == {
        text.partition("_")[0] for text in lines
    }


# --- what editors do to files ----------------------------------------------------------------


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("last", ["", "\n", "\n\n", "  \n", "\r\n\r\n"])
def test_line_ends_a_byte_order_mark_and_blank_lines_at_the_end_do_not_matter(
    tmp_path, end, mark, last
):
    path = tmp_path / "addition.txt"
    text = mark + end.join(line(a, b) for a, b in PAIRS[:12]) + last
    path.write_bytes(text.encode())
    assert read_questions(str(path), None, OPERANDS) == PAIRS[:12]


def test_a_file_without_filling_spaces_is_read(tmp_path):
    path = written(tmp_path, [f"{a}+{b}_{a + b}" for a, b in PAIRS[:12]])
    assert read_questions(path, None, OPERANDS) == PAIRS[:12]


# --- files that cannot be used ---------------------------------------------------------------

NO_QUESTION = "it asks for 2 numbers of at most 3 digits joined by '+', such as 123+123"


@pytest.mark.parametrize(
    "question",
    ["", "12", "1+2+3", "1234+5", "1-2", "1 + 2", "x", "1+²", "-1+2", "1.5+2", "\ufeff1+2"],
)
@pytest.mark.parametrize("number", [1, 7, 12])
def test_a_line_that_is_no_question_is_refused_with_its_number(tmp_path, question, number):
    lines = [line(a, b) for a, b in PAIRS[:12]]
    lines[number - 1] = f"{question}_3"
    path = written(tmp_path, ["\ufeff" + lines[0], *lines[1:]])
    with refused(
        f"line {number} of {path}: {question!r} is no question of this run: {NO_QUESTION}"
    ):
        read_questions(path, None, OPERANDS)


@pytest.mark.parametrize(
    "text",
    ["1+2", "1+2_", "1+2_4", "1+2_03", "1+2_3.0", "1+2_3_3", "1+2_ 3 3", "1+2_+3", "1+2_٣"],
)
def test_a_line_without_its_right_answer_is_refused_with_its_number(tmp_path, text):
    lines = [line(a, b) for a, b in PAIRS[:12]]
    path = written(tmp_path, [*lines[:5], text, *lines[5:]])
    with refused(f"line 6 of {path} must be QUESTION_ANSWER with the right sum, not {text!r}"):
        read_questions(path, None, OPERANDS)


def test_a_blank_line_between_questions_is_refused_with_its_number(tmp_path):
    lines = [line(a, b) for a, b in PAIRS[:12]]
    path = written(tmp_path, [*lines[:5], "", *lines[5:]])
    with refused(f"line 6 of {path}: '' is no question of this run: {NO_QUESTION}"):
        read_questions(path, None, OPERANDS)


def test_the_first_bad_line_is_the_one_that_is_named(tmp_path):
    path = written(tmp_path, [line(1, 2), "1+2_4", "nonsense"])
    with refused(f"line 2 of {path} must be QUESTION_ANSWER with the right sum, not '1+2_4'"):
        read_questions(path, None, OPERANDS)


@pytest.mark.parametrize(
    "content",
    [bytes(range(256)), bytes(100_000), b"\x89PNG\r\n\x1a\n" + bytes(5_000), b"1" * 1_000_000],
    ids=["every byte", "zeros", "picture", "one long line"],
)
def test_what_is_no_text_is_refused_in_one_short_line(tmp_path, content):
    path = tmp_path / "addition.txt"
    path.write_bytes(content)
    with pytest.raises(UserError) as error:
        read_questions(str(path), None, OPERANDS)
    message = str(error.value)
    assert message.startswith(f"line 1 of {path}: ")
    assert message.endswith(f" is no question of this run: {NO_QUESTION}")
    assert len(message.splitlines()) == 1
    assert len(message) < len(str(path)) + 600
    assert message.isprintable()


def test_an_endless_answer_is_cut_in_the_message(tmp_path):
    path = written(tmp_path, ["1+2_" + 100_000 * "3"])
    with refused(
        f"line 1 of {path} must be QUESTION_ANSWER with the right sum, not '1+2_{75 * '3'}…'"
    ):
        read_questions(path, None, OPERANDS)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda path: None, "No such file or directory"),
        (lambda path: path.mkdir(), "Is a directory"),
        (lambda path: path.symlink_to(path), "Too many levels of symbolic links"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused(tmp_path, make, reason):
    path = tmp_path / "addition.txt"
    make(path)
    for attempt in (
        lambda: file_hash(str(path)),
        lambda: read_questions(str(path), None, OPERANDS),
        lambda: make_task(with_file(str(path))),
    ):
        with refused(f"{path} cannot be read: {reason}"):
            attempt()


@pytest.mark.parametrize("n", [0, 1, 9])
def test_a_file_with_too_few_questions_is_refused(tmp_path, n):
    path = good(tmp_path, n)
    with refused(f"{path} has {n} questions: too few to split"):
        read_questions(path, None, OPERANDS)
    assert len(read_questions(good(tmp_path, 10), None, OPERANDS)) == 10


def test_a_file_whose_content_has_changed_is_refused(tmp_path):
    path = good(tmp_path)
    config = with_file(path, sha256=file_hash(path))
    task = make_task(config)
    questions = task.splits(jax.random.key(0))
    for change in (lambda text: text + "\n", lambda text: text.replace("_", " _", 1)):
        changed = change(Path(path).read_text())
        Path(path).write_text(changed)
        message = f"{path} is not the file this run began with: its content has changed"
        for attempt in (lambda: make_task(config), lambda: task.splits(jax.random.key(0))):
            with refused(message):
                attempt()
        good(tmp_path)
        assert make_task(config).splits(jax.random.key(0)) == questions


@pytest.mark.parametrize(("train", "test"), [(45, 6), (44, 5), (46, 4), (50, 5), (5_000, 1_000)])
def test_sizes_that_are_not_the_files_are_refused_with_the_right_ones(tmp_path, train, test):
    path = good(tmp_path)
    with refused(
        f"{path} has 50 questions, of which the last tenth is the test set: "
        "set Addition.train 45 and Addition.test 5"
    ):
        make_task(with_file(path, train=train, test=test))


@pytest.mark.parametrize("again", [PAIRS[3], PAIRS[3][::-1]])
def test_a_question_twice_is_refused_either_way_round(tmp_path, again):
    path = written(tmp_path, [line(*pair) for pair in [*PAIRS[:49], again]])
    with refused(f"{path} has a question twice, or with its operands swapped"):
        make_task(with_file(path))


def test_questions_that_this_run_does_not_ask_are_refused(tmp_path):
    path = good(tmp_path)
    number = next(i for i, (_, b) in enumerate(PAIRS, start=1) if b > 99)
    with pytest.raises(UserError, match=f"^line {number} of .* at most 2 digits"):
        make_task(with_file(path, digits=2))
    swapped = written(tmp_path, [line(b, a) for a, b in PAIRS[1:51]])
    with pytest.raises(UserError, match=r"^line 1 of .*first number is at most 99 and the small"):
        make_task(with_file(swapped, operands="short_first"))
    good(tmp_path)
    make_task(with_file(path, operands="short_first"))
