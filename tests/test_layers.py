"""The README's map of the package is true: every file is on it, and imports point one way."""

import ast
import re
from pathlib import Path

import s2sjax

PACKAGE = Path(s2sjax.__file__).parent
README = (PACKAGE.parent / "README.md").read_text(encoding="utf-8")


def rows() -> dict[str, int]:
    """Row of every file or folder of the package in the README's map, from the top."""
    table = README[README.index("| file | what it holds |") :].split("\n\n")[0]
    cells = [line.split("|")[1] for line in table.splitlines()[2:]]
    names = [(name, row) for row, cell in enumerate(cells) for name in re.findall("`(.*?)`", cell)]
    return {name.removesuffix(".py").removesuffix("/"): row for name, row in names}


def imports(path: Path) -> set[str]:
    """Names directly below s2sjax that a file imports."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "s2sjax":
            inside = (node.module or "").split(".")[1:2]
            found |= set(inside or [alias.name for alias in node.names])
    return found


def test_every_file_is_on_the_map():
    files = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or path.is_dir()}
    assert set(rows()) == files - {"__init__", "__pycache__"}


def test_imports_point_up_the_map_only():
    row, seen = rows(), 0
    for path in PACKAGE.rglob("*.py"):
        name = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        for imported in imports(path) if name != "__init__" else ():
            assert row[imported] <= row[name], f"{name} imports {imported}"
            seen += 1
    assert seen > 50


def test_no_file_is_long():
    for path in [*PACKAGE.rglob("*.py"), *(PACKAGE.parent / "experiments").glob("*.py")]:
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 400, path
