"""The README's map of the package is true: every file is on it, and imports run one way."""

import ast
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "s2sjax"
LINE = [
    {"errors", "files", "serial", "cli"},
    {"config"},
    {"data", "model", "report"},
    {"train"},
    {"study"},
    {"analysis"},
    {"experiments"},
]
LEVEL = {room: level for level, rooms in enumerate(LINE) for room in rooms}
FILES = [p for folder in (PACKAGE, ROOT / "experiments") for p in sorted(folder.rglob("*.py"))]


def imports(path: Path) -> set[str]:
    """Rooms of the package that a file imports from, wherever in the file it does."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import | ast.ImportFrom):
            module = f"{node.module}." if isinstance(node, ast.ImportFrom) else ""
            names = [module + alias.name for alias in node.names]
            found |= {name.split(".")[1] for name in names if name.startswith("s2sjax.")}
    return found


def test_every_file_is_on_the_map_and_in_its_room():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    lines = text.partition("## The house\n")[2].partition("\n## ")[0].splitlines()
    rows = [line.split("|")[1:3] for line in lines if line.startswith("| `")]
    named = [re.findall("`(.*?)`", room + files) for room, files in rows]
    shown = [room.removeprefix("s2sjax/") + file for room, *files in named for file in files]
    on_disk = [p.relative_to(PACKAGE).as_posix() for p in PACKAGE.rglob("*.py")]
    assert sorted(shown) == sorted(f for f in on_disk if not f.endswith("__init__.py"))
    rooms = {room.strip("/") for room, *_ in named} - {"s2sjax"}
    assert rooms == {"data", "model", "train", "report", "study", "analysis"}


def test_imports_run_one_way():
    seen = 0
    for path in FILES:
        room = path.relative_to(ROOT).with_suffix("").parts[path.is_relative_to(PACKAGE)]
        for imported in imports(path) if room != "__init__" else ():
            alike = imported == room or (LEVEL[room], LEVEL[imported]) == (0, 0)
            assert alike or LEVEL[imported] < LEVEL[room], f"{path} imports from {imported}"
            seen += 1
    assert seen > 100


def test_reports_need_no_jax_and_imports_print_nothing():
    modules = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in FILES]
    reports = [name for name in modules if name.startswith("s2sjax.report.")]
    others = [name for name in modules if name.startswith("s2sjax.")]
    code = f"import {', '.join(reports)}, sys\n"
    code += "assert not {'jax', 'jaxlib', 'flax'} & {*sys.modules}\n"
    code += f"import {', '.join(others)}"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert (shown.returncode, shown.stdout) == (0, ""), shown.stderr


def test_no_file_is_long():
    for path in FILES:
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 400, path


def test_a_folder_may_have_any_letters_whatever_the_locale():
    rule = "shown: ; @echo $$LC_ALL\n"
    command = ["make", "-C", str(ROOT), "-f", "Makefile", "-f", "-", "-s", "shown"]
    environment = {**os.environ, "LC_ALL": "C"}
    shown = subprocess.run(command, input=rule, capture_output=True, text=True, env=environment)
    assert shown.stdout.splitlines()[-1] == "C.UTF-8"


def test_the_wheel_holds_every_file_of_the_package(tmp_path):
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    held = {name for name in zipfile.ZipFile(wheel).namelist() if name.startswith("s2sjax/")}
    files = [p for p in PACKAGE.rglob("*") if p.suffix == ".py" or p.name == "py.typed"]
    assert held == {path.relative_to(ROOT).as_posix() for path in files}
