"""Print how many lines the package and the experiments have, and how many they are to have."""

from pathlib import Path

GOAL = {"s2sjax": 8_500, "experiments": 2_200}

ROOT = Path(__file__).parent.parent
for name, goal in GOAL.items():
    paths = (ROOT / name).rglob("*.py")
    lines = sum(len(path.read_text("utf-8").splitlines()) for path in paths)
    print(f"{name}: {lines:,} lines, the goal is at most {goal:,}")
