"""What linear probes found: predictions, tables and a picture of `probes.probe`'s records."""

from collections.abc import Sequence

import numpy as np

from s2sjax.analysis.probes import (
    FREQUENT,
    KNOWN,
    RANDOM,
    SHUFFLED,
    SWAPPED,
    WRITING,
    mean_of,
)
from s2sjax.report.claims import Prediction, paired
from s2sjax.report.plots import Heat, Heats
from s2sjax.report.results import Results, series, values
from s2sjax.report.tables import NONE, OVER_SEEDS, Table, difference, paired_note, quantity, score

MEANING = (
    "A linear probe reads each digit and carry from the state that the decoder starts from. Half "
    "of the test questions of full length fit it, the other half score it; the model was trained "
    "on neither. The probe of the operands' digits themselves says how much of the sum memory "
    "without adding gives."
)
SCALE = (
    "share read right (0: as by the most frequent class)",
    "mean over seeds; u units, t tens, h hundreds, k thousands; read: the encoder's last state; "
    "below t and u: the decoder's state that this digit of the sum is predicted from",
)
"""Label and note of the picture of `heats`."""


def predictions(forward: str, reverse: str) -> list[Prediction]:
    """What was predicted of two arms that differ in the order of the source, before measuring."""

    def expect(claim: str, a: str, b: str, metric: str, margin: float = 0.0) -> Prediction:
        return Prediction(claim, a, b, metric, "equal" if margin else "greater", margin)

    return [
        expect("reversed reads more of the sum", reverse, forward, "sums"),
        expect("reversed reads more of the carries", reverse, forward, "carries"),
        expect("forward reads more of the operands", forward, reverse, "operands"),
        expect("reversed: more than memory gives", reverse, reverse + KNOWN, "sums"),
        expect("reversed: writing adds nothing", reverse + WRITING, reverse, "sums", 0.05),
        expect("forward adds while it writes", forward + WRITING, forward, "sums"),
        expect("reversed: answers follow a swap", reverse + SWAPPED, reverse + RANDOM, "sums"),
        expect("they follow more than forward's", reverse + SWAPPED, forward + SWAPPED, "sums"),
        expect("forward: answers follow a swap", forward + SWAPPED, forward + RANDOM, "operands"),
    ]


def measured(results: Results, predicted: Sequence[Prediction]) -> list[Prediction]:
    """Those of predictions whose arms have measured something in the same seed."""
    seeds: dict[tuple[str, str], set[int]] = {}
    for r in results["records"]:
        seeds.setdefault((r["arm"], r["metric"]), set()).add(r["seed"])
    return [
        p
        for p in predicted
        if seeds.get((p.a, p.metric), {*()}) & seeds.get((p.b, p.metric), {*()})
    ]


def state_table(results: Results, a: str, b: str) -> Table:
    """What is read from the encoder's last state of arm `a` and of `b`, and the floors."""
    rows = []
    for label in dict.fromkeys(r["metric"] for r in results["records"] if r["split"] == "test"):
        c = paired(results, a, b, label)
        floors = [np.mean(values(results, a + end, label)) for end in (KNOWN, SHUFFLED, FREQUENT)]
        rows.append(
            (
                label,
                *(score(values(results, arm, label), label) for arm in (a, b)),
                difference(c.mean_difference, c.ci95, label),
                NONE if c.p_sign_flip is None else f"{c.p_sign_flip:.2g}",
                *(quantity(float(floor), label) for floor in floors),
            )
        )
    headers = ("label", a, b, "a − b", "p", "operands known", "shuffled", "most frequent")
    note = paired_note(
        ", not corrected. Place: u units, t tens, h hundreds, k thousands. Floors, means over the "
        f"seeds of {a}: the probe of the operands' one-hot digits, the probe fitted to shuffled "
        "labels, the most frequent class.",
        [paired(results, a, b, "sums").n],
        "Difference a − b, the first arm less the second,",
    )
    return Table(f"Read from the encoder's last state, {a} and {b}", headers, tuple(rows), note)


def heats(results: Results, arms: Sequence[str]) -> Heats:
    """Label x epoch of the encoder's last state, and label x state after the last epoch."""
    labels = [m for m in dict.fromkeys(r["metric"] for r in results["records"]) if mean_of(m)]
    panels: dict[str, dict[str, Heat]] = {
        "The encoder's last state, by epoch": {},
        "After the last epoch: it, and the decoder's states": {},
    }

    shown = [label.replace(" ", "\u00a0") for label in labels]

    def above(name: str, arm: str, label: str) -> dict[int, float]:
        floors, curves = (series(results, a, label, "test") for a in (arm + FREQUENT, name))
        gains = [
            {e: (x - floors[seed][e]) / (1 - floors[seed][e] + 1e-9) for e, x in curve.items()}
            for seed, curve in curves.items()
        ]
        return {e: max(0.0, float(np.mean([gain[e] for gain in gains]))) for e in gains[0]}

    for arm in arms:
        before = [r["arm"] for r in results["records"] if r["arm"].startswith(f"{arm}, before ")]
        names = [arm, *dict.fromkeys(before)]
        curves = {label: [above(name, arm, label) for name in names] for label in labels}
        epochs = [*curves[labels[0]][0]]
        through = np.array([[*curves[label][0].values()] for label in labels])
        late = np.array([[curve[epochs[-1]] for curve in curves[label]] for label in labels])
        places = ["read", *(name.split()[-1] for name in names[1:])]
        for row, heat in zip(
            panels.values(),
            (Heat(through, shown, [*map(str, epochs)]), Heat(late, shown, places)),
            strict=True,
        ):
            row[arm] = heat
    return panels


def swap_table(results: Results, arms: Sequence[str]) -> Table | None:
    """How often the answer's digit follows a swap; None if nothing was swapped."""
    rows = []
    known = {(r["arm"], r["metric"]) for r in results["records"]}
    labels = dict.fromkeys(r["metric"] for r in results["records"] if r["arm"].endswith(SWAPPED))
    for label in labels:
        for arm in arms:
            ends = [
                score(values(results, arm + end, label), label)
                if (arm + end, label) in known
                else NONE
                for end in (SWAPPED, RANDOM)
            ]
            rows.append((label, arm, *ends))
    note = (
        "Share of answers whose digit follows when the encoder's last state is moved so that a "
        "label's probe reads that of another question: for a digit of the sum its digit, for one "
        "of an operand the digit that this operand gives. Of digits that should change and that "
        f"the model has right in both questions. {OVER_SEEDS}"
    )
    headers = ("label", "arm", "span of the probe", "random span")
    return Table("Swapped between two questions", headers, tuple(rows), note) if rows else None
