"""Results of runs that never were, for tests of what is made of results."""

from dataclasses import asdict
from itertools import pairwise
from typing import Any

from s2sjax.report.stats import compare

EXACT, LOSS = "free_running/exact_match", "loss"
SCORES = {
    "forward": {EXACT: [0.10, 0.12, 0.11], LOSS: [1.0, 0.9, 0.95]},
    "reversed": {EXACT: [0.50, 0.61, 0.55], LOSS: [0.1, 0.2, 0.15]},
}


def make_results(scores: Any = SCORES) -> dict[str, Any]:
    """Results of arms with the same metrics; epoch 1 is far from epoch 2, the last."""
    records = [
        {
            "arm": arm,
            "seed": seed,
            "split": "test",
            "epoch": epoch,
            "metric": metric,
            "value": value,
        }
        for epoch in (2, 1)
        for arm, metrics in scores.items()
        for metric, by_seed in metrics.items()
        for seed, value in [*enumerate(x if epoch == 2 else 0.0 for x in by_seed)][::-1]
    ]
    names = [*scores]
    comparisons = [
        asdict(compare(b, a, metric, scores[b][metric], scores[a][metric]))
        for a, b in pairwise(names)
        for metric in scores[a]
    ]
    environment = {"python": "3.11.9", "jax": "0.10.2", "device_kind": "cpu", "device_count": 2}
    return {
        "experiment": "reverse_vs_forward",
        "preset": "smoke",
        "config": {},
        "config_hash": "c0ffee",
        "environment": environment,
        "records": records,
        "comparisons": comparisons,
    }
