"""A finished run's results.json: reading it, refusing a damaged one, picking numbers from it.

One tidy record a measurement (arm, seed, split, epoch, metric, value), the comparisons of
`stats.compare`, and what they depend on: config, versions, devices. In the file the records of an
arm, split and metric are one line, a `series`, so that what is committed stays small.
"""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import NoneType
from typing import Any

from s2sjax.errors import UserError

Results = Mapping[str, Any]

SHAPE: Mapping[str, type] = {
    "experiment": str,
    "preset": str,
    "config": dict,
    "config_hash": str,
    "environment": dict,
    "records": list,
    "comparisons": list,
}
RECORD: Mapping[str, type | tuple[type, ...]] = {
    "arm": str,
    "seed": int,
    "split": str,
    "epoch": int,
    "metric": str,
    "value": (int, float),
}
NUMBER = (int, float)
COMPARISON: Mapping[str, type | tuple[type, ...]] = {
    "a": str,
    "b": str,
    "metric": str,
    "n": int,
    "mean_a": NUMBER,
    "mean_b": NUMBER,
    "mean_difference": NUMBER,
    "ci95": (list, NoneType),
    "p_sign_flip": (*NUMBER, NoneType),
    "d_z": (*NUMBER, NoneType),
    "p_superiority": NUMBER,
}


def load_results(path: str | os.PathLike[str]) -> Results:
    """Reads a results.json and makes sure that it is one.

    Raises:
        UserError: there is no such file, or it is damaged, or it is not a results.json.
    """

    def refuse_constant(constant: str) -> None:
        raise ValueError(f"it holds {constant}, which no finished run writes")

    try:
        results = json.loads(Path(path).read_text(encoding="utf-8"), parse_constant=refuse_constant)
        if isinstance(results, dict) and "series" in results:
            results["records"] = list(_unpacked(results.pop("series")))
        _check(results)
    except FileNotFoundError:
        raise UserError(f"{path} does not exist: run the experiment that writes it.") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:  # not UTF-8, not JSON, or _check's
        raise UserError(
            f"{path} cannot be used, {error}: restore it, or delete it and run the experiment again"
        ) from error
    return results


def _check(results: object) -> None:
    if not isinstance(results, dict):
        raise ValueError(f"its content is a {type(results).__name__}, not an object")
    for key, kind in SHAPE.items():
        if not isinstance(results.get(key), kind):
            raise ValueError(f"its {key!r} is missing or not a {kind.__name__}")
    seen = set()
    for i, record in enumerate(results["records"]):
        for key, kind in RECORD.items():
            if not isinstance(record, dict) or not isinstance(record.get(key), kind):
                raise ValueError(f"its records[{i}] has no usable {key!r}")
        place = tuple(record[key] for key in RECORD if key != "value")
        if place in seen:
            raise ValueError(f"its records[{i}] repeats an earlier one: {place}")
        seen.add(place)
    for i, comparison in enumerate(results["comparisons"]):
        for key, kind in COMPARISON.items():
            if not isinstance(comparison, dict) or not isinstance(comparison.get(key, ...), kind):
                raise ValueError(f"its comparisons[{i}] has no usable {key!r}")
    if not results["records"] or not results["comparisons"]:
        raise ValueError("it holds no records, or no comparisons")


# --- selecting --------------------------------------------------------------------------------


def arms(results: Results) -> list[str]:
    """Names of the arms, in the order of their first record."""
    return list(dict.fromkeys(record["arm"] for record in results["records"]))


def series(results: Results, arm: str, metric: str, split: str) -> dict[int, dict[int, float]]:
    """``{seed: {epoch: value}}`` of one arm, seeds and epochs ascending.

    Raises:
        ValueError: there are no such records; the message names what there is.
    """
    found: dict[int, dict[int, float]] = {}
    for record in results["records"]:
        if (record["arm"], record["metric"], record["split"]) == (arm, metric, split):
            found.setdefault(record["seed"], {})[record["epoch"]] = record["value"]
    if not found:
        there: dict[str, list[str]] = {
            key: list(dict.fromkeys(record[key] for record in results["records"]))
            for key in ("arm", "metric", "split")
        }
        raise ValueError(
            f"No records of arm {arm!r}, metric {metric!r}, split {split!r}; there are arms "
            f"{there['arm']}, metrics {there['metric']} and splits {there['split']}."
        )
    return {seed: dict(sorted(found[seed].items())) for seed in sorted(found)}


def by_seed(results: Results, arm: str, metric: str, split: str = "test") -> dict[int, float]:
    """``{seed: value}`` of one arm at its last epoch, seeds ascending.

    Raises:
        ValueError: there are no such records, or a seed has none at the last epoch.
    """
    curves = series(results, arm, metric, split)
    last = max(epoch for curve in curves.values() for epoch in curve)
    short = [seed for seed, curve in curves.items() if last not in curve]
    if short:
        raise ValueError(
            f"Seeds {short} of arm {arm!r} have no {metric!r} on {split!r} at epoch {last}, where "
            "the others end."
        )
    return {seed: curve[last] for seed, curve in curves.items()}


def values(results: Results, arm: str, metric: str, split: str = "test") -> list[float]:
    """The values of `by_seed`, in seed order."""
    return [*by_seed(results, arm, metric, split).values()]


# --- to a file and back -----------------------------------------------------------------------


def dump_results(results: Mapping[str, Any]) -> str:
    """Results as JSON with a series a line, so that they can be read and compared by line."""
    heads = [
        f"{json.dumps(name)}: {json.dumps(value, indent=1)}"
        for name, value in results.items()
        if name != "records"
    ]
    lines = [json.dumps(line, allow_nan=False) for line in _packed(results["records"])]
    return "{\n" + ",\n".join([*heads, '"series": [\n' + ",\n".join(lines) + "\n]"]) + "\n}\n"


def _packed(records: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """``{arm, split, metric, epochs, values: {seed: [value at each epoch]}}``."""
    curves: dict[tuple[str, str, str, int], dict[int, float]] = {}
    for r in records:
        curve = curves.setdefault((r["arm"], r["split"], r["metric"], r["seed"]), {})
        curve[r["epoch"]] = r["value"]
    lines: dict[tuple[str, str, str, tuple[int, ...]], dict[int, list[float]]] = {}
    for (arm, split, metric, seed), curve in curves.items():
        lines.setdefault((arm, split, metric, (*curve,)), {})[seed] = [*curve.values()]
    for (arm, split, metric, epochs), values in lines.items():
        yield {"arm": arm, "split": split, "metric": metric, "epochs": epochs, "values": values}


def _unpacked(lines: object) -> Iterator[dict[str, Any]]:
    """The records of what `_packed` made; raises ValueError for what it cannot have made."""
    try:
        for line in lines:  # pyrefly: ignore[not-iterable]
            for seed, values in line["values"].items():
                for epoch, value in zip(line["epochs"], values, strict=True):
                    names = {name: line[name] for name in ("arm", "split", "metric")}
                    yield names | {"seed": int(seed), "epoch": epoch, "value": value}
    except (TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"its series are damaged ({type(error).__name__})") from error
