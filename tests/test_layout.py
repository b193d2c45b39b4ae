"""The rooms of the package: what may import what, and a few rules that keep each of them small.

Each rule is a function from the folder of a package to its offenders, so that it runs on small broken packages too.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest

import nnunet_limited

PACKAGE = Path(nnunet_limited.__file__).parent

# Lowest first: a room imports from itself and from the lines above its own.
ORDER = (
    ("__init__", "errors"),
    ("util",),
    ("losses", "networks", "annotations", "metrics"),
    ("prompters",),
    ("host",),
    ("report",),
    ("datasets",),
    ("splits",),
    ("planners",),
    ("data",),
    ("engine",),
    ("trainers",),
    ("_ext", "runs"),
    ("pseudo_labels",),
    ("queries",),
    ("testing",),
    ("studies",),
    ("cli",),
    ("__main__",),
)
WITHOUT_NNUNET = ("errors", "util", "losses", "networks", "annotations", "metrics")
NNUNET = {"nnunetv2", "batchgenerators", "batchgeneratorsv2", "dynamic_network_architectures", "acvl_utils"}
NNUNET_ROOMS = {"host", "engine", "runs"}
NNUNET_MODULES = {"networks.transformer"}
MAX_LINES = 399
READ_ONCE = {"nnunet_folder": 3, "load_plans": 3, "data_folders": 3}  # callers, by files
BEGINNINGS = {"of", "that", "what"}
TESTS_OF_ALL = {"contract"}  # folders of tests that concern no single room
TESTS_AT_TOP = {f"test_{name}.py" for name in ("layout", "benchmarks", "walk_through", "wrong_input", "hostile")}


@cache
def modules(package: Path) -> dict[str, ast.Module]:
    """Return the parsed modules by their names without the package's; a folder is named ``room.__init__``."""
    files = sorted(package.rglob("*.py"))
    return {
        ".".join(file.relative_to(package).with_suffix("").parts): ast.parse(file.read_text(encoding="utf-8"))
        for file in files
    }


def room(module: str) -> str:
    return module.split(".")[0]


def imports(package: Path, module: str) -> Iterator[tuple[int, str]]:
    """Yield line and full name of all that is imported, in functions and for type checkers too."""
    for node in ast.walk(modules(package)[module]):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = [package.name, *module.split(".")][: -node.level] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)


def own_imports(package: Path, module: str) -> Iterator[tuple[int, str]]:
    """Yield line and module of what is imported from the package itself."""
    known = modules(package)
    for line, name in imports(package, module):
        parts = name.split(".")
        if parts[0] != package.name:
            continue
        for end in range(len(parts), 0, -1):  # "a.b.f" is the module a.b, the package a.b, or f of one of them
            names = (".".join(parts[1:end]), ".".join([*parts[1:end], "__init__"]))
            if found := next((name for name in names if name in known), None):
                yield line, found
                break


def calls(tree: ast.Module) -> Iterator[tuple[str, ast.Call]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            called = node.func
            name = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
            yield name, node


def imports_point_downwards(package: Path) -> list[str]:
    rank = {name: index for index, names in enumerate(ORDER) for name in names}
    found = [f"{name} has no place in the order" for name in {room(m) for m in modules(package)} - {*rank}]
    for module in modules(package):
        for line, other in own_imports(package, module):
            here, there = room(module), room(other)
            if here != there and rank.get(there, -1) >= rank.get(here, len(rank)):
                found.append(f"{module}:{line} imports {other}")
    return found


def modules_import_in_no_circle(package: Path) -> list[str]:
    graph = {module: {other for _, other in own_imports(package, module)} - {module} for module in modules(package)}

    def reached(start: str) -> set[str]:
        seen: set[str] = set()
        waiting = [start]
        while waiting:
            for other in graph[waiting.pop()] - seen:
                seen.add(other)
                waiting.append(other)
        return seen

    reach = {module: reached(module) for module in graph}
    circles = {tuple(sorted(other for other in reach[m] if m in reach[other])) for m in graph if m in reach[m]}
    return [" <-> ".join(circle) for circle in sorted(circles)]


def nnunet_is_imported_at_its_edges_only(package: Path) -> list[str]:
    return [
        f"{module}:{line} imports {name}"
        for module in modules(package)
        if room(module) not in NNUNET_ROOMS and module not in NNUNET_MODULES
        for line, name in imports(package, module)
        if name.split(".")[0] in NNUNET
    ]


def lower_rooms_import_without_nnunet(package: Path) -> list[str]:
    names = [f"{package.name}.{m}".removesuffix(".__init__") for m in modules(package) if room(m) in WITHOUT_NNUNET]
    code = f"""
import importlib, sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {NNUNET!r}:
            raise ModuleNotFoundError("blocked " + name)
sys.meta_path.insert(0, Blocker())
sys.path.insert(0, {str(package.parent)!r})
for name in {names!r}:
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        print(name, error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def modules_are_short(package: Path) -> list[str]:
    lengths = {file: len(file.read_text(encoding="utf-8").splitlines()) for file in sorted(package.rglob("*.py"))}
    return [f"{file.relative_to(package)} has {lines} lines" for file, lines in lengths.items() if lines > MAX_LINES]


def texts_do_not_begin_with_a_particle(package: Path) -> list[str]:
    """Help texts of options, descriptions of settings, and the docstrings that are the help of a command."""
    found = []
    for module, tree in modules(package).items():
        texts = [
            (keyword.value.lineno, _beginning(keyword.value))
            for _, call in calls(tree)
            for keyword in call.keywords
            if keyword.arg in ("help", "description")
        ]
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef) and any("command" in ast.dump(d) for d in node.decorator_list):
                texts.append((node.lineno, ast.get_docstring(node) or ""))
        found += [
            f"{module}:{line} {text[:60]!r}"
            for line, text in texts
            if "".join(c for c in (text.split() or [""])[0] if c.isalpha()).lower() in BEGINNINGS
        ]
    return found


def _beginning(node: ast.expr) -> str:
    """Return the constant part that an expression begins with."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return _beginning(node.values[0]) if node.values else ""
    return _beginning(node.left) if isinstance(node, ast.BinOp) else ""


def regions_are_no_parameter(package: Path) -> list[str]:
    return [
        f"{module}:{node.lineno} {getattr(node, 'name', 'lambda')}"
        for module, tree in modules(package).items()
        if module != "losses.label_space" and room(module) != "host"
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        if "regions" in {a.arg for a in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)}
    ]


def planned_data_is_read_in_few_files(package: Path) -> list[str]:
    callers = defaultdict(set)
    for module, tree in modules(package).items():
        for name, _ in calls(tree):
            if name in READ_ONCE:
                callers[name].add(module)
    return [
        f"{name} is called in {len(files)} files: {', '.join(sorted(files))}"
        for name, files in sorted(callers.items())
        if len(files) > READ_ONCE[name]
    ]


def rooms_have_tests(package: Path) -> list[str]:
    tests = package.parent / "tests"
    rooms = {room(m) for m in modules(package) if "." in m} - {"_ext"}
    folders = {file.parent.relative_to(tests).parts[0] for file in tests.rglob("test_*.py") if file.parent != tests}
    return [
        *(f"tests/{name} is missing" for name in sorted(rooms - folders)),
        *(f"tests/{name} is of no room" for name in sorted(folders - rooms - TESTS_OF_ALL)),
        *(f"tests/{f.name} is in no room" for f in sorted(tests.glob("test_*.py")) if f.name not in TESTS_AT_TOP),
    ]


def text_files_name_their_encoding(package: Path) -> list[str]:
    """What ruff's PLW1514 does not see, because it has to know that a value is a path."""
    found = []
    for module, tree in modules(package).items():
        for name, call in calls(tree):
            if name not in ("read_text", "write_text", "open") or any(k.arg == "encoding" for k in call.keywords):
                continue
            method = isinstance(call.func, ast.Attribute)
            owner = getattr(call.func.value, "id", "") if isinstance(call.func, ast.Attribute) else ""
            values = [*call.args[0 if method else 1 :], *(k.value for k in call.keywords if k.arg == "mode")]
            binary = any(isinstance(v, ast.Constant) and "b" in str(v.value) for v in values)
            if not (name == "open" and (binary or owner in ("blosc2", "os", "tarfile", "webbrowser"))):
                found.append(f"{module}:{call.lineno} {name}")
    return found


Check = Callable[[Path], list[str]]

# Each check with a small package that fails it, and what it says there.
BROKEN: list[tuple[Check, dict[str, str], list[str]]] = [
    (
        imports_point_downwards,
        {
            "util/a.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from house.cli import b\n",
            "losses/c.py": "def f():\n    from house.networks.d import x\n",
            "networks/d.py": "x = 1\n",
            "cellar/e.py": "",
        },
        [
            "cellar has no place in the order",
            "losses.c:2 imports networks.d",
            "util.a:3 imports cli.__init__",
        ],
    ),
    (
        modules_import_in_no_circle,
        {
            "util/a.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from .b import y\n",
            "util/b.py": "from . import a\n",
            "util/c.py": "from house.util import b\n",
        },
        ["util.a <-> util.b"],
    ),
    (
        nnunet_is_imported_at_its_edges_only,
        {
            "trainers/a.py": "from nnunetv2.paths import x\n",
            "data/b.py": "def f():\n    import batchgenerators.utilities\n",
            "networks/transformer.py": "import dynamic_network_architectures\n",
        },
        ["data.b:2 imports batchgenerators.utilities", "trainers.a:1 imports nnunetv2.paths.x"],
    ),
    (
        lower_rooms_import_without_nnunet,
        {
            "losses/a.py": "from house.host.b import x\n",
            "host/b.py": "from nnunetv2 import x\n",
            "metrics/c.py": "def f():\n    import nnunetv2\n",
        },
        ["house.losses.a blocked nnunetv2"],
    ),
    (modules_are_short, {"util/a.py": "x = 1\n" * 400, "util/b.py": "x = 1\n" * 399}, ["util/a.py has 400 lines"]),
    (
        texts_do_not_begin_with_a_particle,
        {
            "cli/a.py": "o = Option(1, help='Of the choice.')\np = Option(1, help='Offset in mm.')\n",
            "cli/b.py": "@app.command()\ndef f():\n    '''What it is.'''\ndef g():\n    '''What is no help.'''\n",
            "trainers/c.py": "x = Field(1, description=f'that {o} counts')\n",
        },
        ["cli.a:1 'Of the choice.'", "cli.b:2 'What it is.'", "trainers.c:1 'that '"],
    ),
    (
        regions_are_no_parameter,
        {
            "data/a.py": "def f(x, *, regions=None): ...\ng = lambda regions: 1\ndef h(region): ...\n",
            "host/b.py": "def f(regions): ...\n",
            "losses/label_space.py": "def f(regions): ...\n",
        },
        ["data.a:1 f", "data.a:2 lambda"],
    ),
    (
        planned_data_is_read_in_few_files,
        {f"data/{name}.py": "load_plans(1)\n" + "p.data_folders()\n" * (name != "d") for name in "abcd"},
        ["load_plans is called in 4 files: data.a, data.b, data.c, data.d"],
    ),
    (
        rooms_have_tests,
        {
            "data/a.py": "",
            "util/b.py": "",
            "../tests/util/test_b.py": "",
            "../tests/cellar/test_c.py": "",
            "../tests/contract/test_d.py": "",
            "../tests/test_e.py": "",
            "../tests/test_layout.py": "",
        },
        [
            "tests/cellar is of no room",
            "tests/cli is missing",
            "tests/data is missing",
            "tests/test_e.py is in no room",
        ],
    ),
    (
        text_files_name_their_encoding,
        {
            "util/a.py": "p.read_text()\np.read_text(encoding='utf-8')\np.open('wb')\nopen(p, 'rb')\nblosc2.open(p)\n",
            "util/b.py": "p.open('w')\nopen(p)\np.write_text('b')\n",
        },
        ["util.a:1 read_text", "util.b:1 open", "util.b:2 open", "util.b:3 write_text"],
    ),
]


@pytest.mark.parametrize("check", [check for check, _, _ in BROKEN], ids=lambda check: check.__name__)
def test_the_package_keeps_the_rule(check: Check) -> None:
    offenders = check(PACKAGE)
    print(*offenders, sep="\n")
    assert not offenders, f"{len(offenders)} offenders:\n" + "\n".join(offenders)


@pytest.mark.parametrize(("check", "files", "offenders"), BROKEN, ids=lambda value: getattr(value, "__name__", ""))
def test_a_package_that_breaks_the_rule_is_found(
    tmp_path: Path, check: Check, files: dict[str, str], offenders: list[str]
) -> None:
    for name, text in {"__init__.py": "", "cli/__init__.py": "b = 1\n", **files}.items():
        file = tmp_path / "house" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    assert sorted(check(tmp_path / "house")) == offenders
