"""The style guide as a test: what a reader of this code may rely on, read off its syntax trees.

A rule is a function of one module that yields a line and a message for each breach; its docstring
is what it claims. Where a rule makes the code worse, break it in EXCEPTIONS and say why. The last
two tests show that every rule bites, and only where it should. Generated code is left out.
"""

import ast
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import cache
from pathlib import Path, PurePosixPath

import pytest

from tests.kit.house import (
    IMPURE,
    IMPURE_OF_OURS,
    MAY_IMPORT,
    MESSAGES,
    PACKAGES,
    PURE,
    TOOLS,
    VENDORS,
)

ROOT = Path(__file__).resolve().parent.parent

PLACELESS = {*sys.stdlib_module_names, "google", "numpy"}  # Imported wherever they are of use.

TYPE_GUARDS = {"TYPE_CHECKING", "typing.TYPE_CHECKING"}
STORAGE = "rangefinder/storage.py"
FILE_LINES_MAX = 450  # Aim at 200.
FUNCTION_LINES_MAX = 40  # Of its body, without the docstring. Aim at 10.
VAGUE = {"manager", "helper", "helpers", "util", "utils", "common", "base", "impl", "data"}
UNFINISHED = re.compile(r"\b(?:T[O]DO|F[I]XME|X[X]X)\b")  # Spelt so that this line is no breach.

# (rule, path) -> why the rule would make that file worse.
EXCEPTIONS: dict[tuple[str, str], str] = {
    ("no_print", "rangefinder/process.py"): "Why a process ends at once is for who started it, too.",
}


@dataclass(frozen=True, slots=True)
class Module:
    """One source file."""

    path: str  # From the root of the checkout, with slashes.
    source: str
    tree: ast.Module

    @classmethod
    def parse(cls, path: str, source: str) -> "Module":
        return cls(path, source, ast.parse(source, path))

    @property
    def layer(self) -> str:
        return layer_of(self.path.removesuffix(".py").replace("/", "."))

    @property
    def is_in_a_package(self) -> bool:
        return self.path.startswith(tuple(f"{package}/" for package in PACKAGES))

    def is_one_of(self, patterns: tuple[str, ...]) -> bool:
        return any(fnmatch(self.path, pattern) for pattern in patterns)


Breach = tuple[int, str]  # A line, and what is wrong there.
Rule = Callable[[Module], Iterator[Breach]]


@cache
def own_modules() -> tuple[Module, ...]:
    """Every source file of ours, generated ones left out."""
    paths = (path for folder in (*PACKAGES, *TOOLS) for path in (ROOT / folder).rglob("*.py"))
    return tuple(
        Module.parse(path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8"))
        for path in sorted(paths)
        if "_pb2" not in path.name
    )


def layer_of(name: str) -> str:
    """The row of MAY_IMPORT that a dotted name belongs to, if any."""
    is_command_line = f"{name}.".startswith("rangefinder.cli.")
    return "rangefinder.cli" if is_command_line else name.partition(".")[0]


def imports(module: Module, *, for_types_too: bool = False) -> Iterator[tuple[int, str]]:
    """Line and dotted name of each import, nested ones too; `from a import b` names a.b.

    Imports under `if TYPE_CHECKING` are gone when the program runs, and are left out by default.
    """
    for_types = {
        id(node)
        for guard in ast.walk(module.tree)
        if isinstance(guard, ast.If) and ast.unparse(guard.test) in TYPE_GUARDS
        for statement in guard.body
        for node in ast.walk(statement)
    }
    for node in ast.walk(module.tree):
        if id(node) in for_types and not for_types_too:
            continue
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            source = imported_package(module.path, node)
            yield from ((node.lineno, f"{source}.{alias.name}") for alias in node.names)


def imported_package(path: str, node: ast.ImportFrom) -> str:
    """Dotted name after `from`, with the leading dots of a relative import resolved."""
    if node.level == 0:
        return node.module or ""
    parents = PurePosixPath(path).parent.parts
    kept = parents[: len(parents) - (node.level - 1)]
    return ".".join((*kept, node.module) if node.module else kept)


def calls(module: Module) -> Iterator[ast.Call]:
    return (node for node in ast.walk(module.tree) if isinstance(node, ast.Call))


def words(name: str) -> set[str]:
    """The words of a name in snake_case or CamelCase, in small letters."""
    return {word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", name)}


def import_direction(module: Module) -> Iterator[Breach]:
    """The kernel imports none of ours, services the kernel only, and nobody the command line."""
    for line, name in imports(module, for_types_too=True):
        layer = layer_of(name)
        if layer in MAY_IMPORT and layer not in {module.layer, *MAY_IMPORT[module.layer]}:
            yield line, f"{module.layer} may not import {name}"


def purity(module: Module) -> Iterator[Breach]:
    """Modules that decide import no event loop, network, disk, randomness or clock."""
    if module.path not in PURE:
        return
    for line, name in imports(module):
        shell = next((ours for ours in IMPURE_OF_OURS if f"{name}.".startswith(f"{ours}.")), None)
        if shell or name.partition(".")[0] in IMPURE:
            yield line, f"a pure module imports {name}"


def vendor_place(module: Module) -> Iterator[Breach]:
    """A vendor's library is imported by the one file that wraps it, gRPC at the edge only."""
    if not module.is_in_a_package:
        return
    for line, name in imports(module):
        top = name.partition(".")[0]
        if top not in {*PLACELESS, *VENDORS, *MAY_IMPORT}:
            yield line, f"{top} has no place in VENDORS"
        elif top in VENDORS and not module.is_one_of(VENDORS[top]):
            yield line, f"{name} belongs to {' and '.join(VENDORS[top])}"


def message_place(module: Module) -> Iterator[Breach]:
    """Generated messages are known at the edge only; the rest has types of its own."""
    if not module.is_in_a_package or module.is_one_of(MESSAGES):
        return
    for line, name in imports(module):
        if re.search(r"_pb2(_grpc)?\b", name):
            yield line, f"{name}: messages stay at the edge"


def file_size(module: Module) -> Iterator[Breach]:
    """No file is longer than FILE_LINES_MAX."""
    line_count = len(module.source.splitlines())
    if line_count > FILE_LINES_MAX:
        yield line_count, f"{line_count} lines; {FILE_LINES_MAX} at most"


def function_size(module: Module) -> Iterator[Breach]:
    """No function body is longer than FUNCTION_LINES_MAX, tests excepted."""
    if module.layer == "tests":
        return
    for node in ast.walk(module.tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            statements = node.body[1:] if ast.get_docstring(node) else node.body
            line_count = (node.end_lineno or 0) - statements[0].lineno + 1 if statements else 0
            if line_count > FUNCTION_LINES_MAX:
                yield node.lineno, f"{node.name}: {line_count} lines; {FUNCTION_LINES_MAX} at most"


def vague_name(module: Module) -> Iterator[Breach]:
    """No file or class has a word in its name that fits everything."""
    classes = (node for node in ast.walk(module.tree) if isinstance(node, ast.ClassDef))
    names = [(1, module.path.removesuffix(".py")), *((c.lineno, c.name) for c in classes)]
    for line, name in names:
        for word in sorted(words(name) & VAGUE):
            yield line, f"{name}: {word!r} says nothing"


def module_docstring(module: Module) -> Iterator[Breach]:
    """Every module says what it is; an empty __init__.py need not."""
    is_marker = module.path.endswith("__init__.py") and not module.source.strip()
    if not is_marker and not ast.get_docstring(module.tree):
        yield 1, "a module says what it is and is not"


def durable_step(module: Module) -> Iterator[Breach]:
    """What makes files outlive a crash stands in one file, where a test can take its place."""
    if not module.is_in_a_package or module.path == STORAGE:
        return
    for line, name in imports(module):
        if re.fullmatch(r"os\.(fsync|fdatasync|replace|renames?)|shutil\.move", name):
            yield line, f"{name}: only {STORAGE} syncs and renames"
    for call in calls(module):
        if is_durable_step(call):
            yield call.lineno, f"{ast.unparse(call.func)}: only {STORAGE} syncs and renames"


def is_durable_step(call: ast.Call) -> bool:
    """Whether a call syncs or renames a file; str.replace takes two arguments, Path.replace one."""
    if not isinstance(call.func, ast.Attribute):
        return False
    owner, method = ast.unparse(call.func.value), call.func.attr
    if method == "replace":
        keywords = {keyword.arg for keyword in call.keywords}
        return owner == "os" or (len(call.args) == 1 and not keywords) or "target" in keywords
    is_move = owner == "shutil" and method == "move"
    return is_move or method in {"fsync", "fdatasync", "rename", "renames"}


def no_print(module: Module) -> Iterator[Breach]:
    """Processes log; only the command line and the tools write to standard output."""
    if not module.is_in_a_package or module.layer == "rangefinder.cli":
        return
    for call in calls(module):
        if isinstance(call.func, ast.Name) and call.func.id == "print":
            yield call.lineno, "print: a process logs, only the command line prints"


def nothing_unfinished(module: Module) -> Iterator[Breach]:
    """No mark of unfinished work stands in the code."""
    for line, text in enumerate(module.source.splitlines(), start=1):
        if found := UNFINISHED.search(text):
            yield line, f"{found[0]}: finish it, or file an issue"


RULES: tuple[Rule, ...] = (
    import_direction,
    purity,
    vendor_place,
    message_place,
    file_size,
    function_size,
    vague_name,
    module_docstring,
    durable_step,
    no_print,
    nothing_unfinished,
)


@pytest.mark.parametrize("rule", RULES)
def test_the_code_keeps(rule: Rule) -> None:
    """No file of ours breaks the rule, whose docstring is the claim."""
    breaches = [
        f"{module.path}:{line}: {message}"
        for module in own_modules()
        if (rule.__name__, module.path) not in EXCEPTIONS
        for line, message in rule(module)
    ]
    assert not breaches, "\n" + "\n".join(breaches)


def test_pure_modules_exist() -> None:
    """The list of pure modules names files that are there, so that a renamed one stays watched."""
    missing = [path for path in PURE if not (ROOT / path).is_file()]
    assert not missing


def test_the_rules_see_the_code() -> None:
    """The walk finds every package that is there, so that no rule holds over nothing."""
    present = {folder for folder in (*PACKAGES, *TOOLS) if any((ROOT / folder).rglob("*.py"))}
    assert present == {module.path.partition("/")[0] for module in own_modules()}


def test_exceptions_are_still_needed() -> None:
    """An exception whose file keeps the rule, or is gone, is removed."""
    modules = {module.path: module for module in own_modules()}
    rules = {rule.__name__: rule for rule in RULES}
    needless = [
        (name, path)
        for name, path in EXCEPTIONS
        if path not in modules or not any(rules[name](modules[path]))
    ]
    assert not needless


LONG_BODY = "    x = 1\n" * 41

BAD: tuple[tuple[Rule, str, str], ...] = (
    (import_direction, "rangefinder/edge/server.py", "import router.config"),
    (import_direction, "rangefinder/errors.py", "def f():\n    from tests import worlds"),
    (import_direction, "rangefinder/client.py", "from rangefinder.cli import main"),
    (import_direction, "router/merge.py", "from shard_server import segment"),
    (import_direction, "router/merge.py", "if TYPE_CHECKING:\n    import shard_server"),
    (import_direction, "shard_server/node.py", "from rangefinder import cli"),
    (import_direction, "shard_server/build/spool.py", "from ...router import config"),
    (purity, "rangefinder/keys.py", "import os.path"),
    (purity, "rangefinder/keys.py", "def f():\n    from time import monotonic"),
    (purity, "rangefinder/keys.py", "from rangefinder.storage import sync"),
    (vendor_place, "router/choice.py", "import grpc.aio"),
    (vendor_place, "router/choice.py", "from rich.table import Table"),
    (vendor_place, "shard_server/segment.py", "import hnswlib"),
    (vendor_place, "shard_server/segment.py", "import requests"),
    (message_place, "router/choice.py", "from rangefinder.v1 import types_pb2"),
    (message_place, "router/choice.py", "from rangefinder.v1.types_pb2 import Certificate"),
    (message_place, "router/choice.py", "import rangefinder.v1.item_pb2_grpc as stubs"),
    (file_size, "tests/test_long.py", "\n" * 451),
    (function_size, "router/choice.py", f"def f():\n{LONG_BODY}"),
    (function_size, "scripts/plan.py", f"class A:\n  async def f(self):\n    'Says.'\n{LONG_BODY}"),
    (vague_name, "router/merge_utils.py", ""),
    (vague_name, "router/common/merge.py", ""),
    (vague_name, "router/merge.py", "class HTTPManager: ..."),
    (module_docstring, "router/merge.py", "import math"),
    (module_docstring, "router/__init__.py", "import math"),
    (durable_step, "router/map_file.py", "os.fsync(file.fileno())"),
    (durable_step, "router/map_file.py", "temporary.replace(path)"),
    (durable_step, "router/map_file.py", "temporary.replace(target=path)"),
    (durable_step, "router/map_file.py", "os.replace(temporary, path)"),
    (durable_step, "router/map_file.py", "path.with_suffix('.tmp').rename(path)"),
    (durable_step, "router/map_file.py", "from os import fsync"),
    (no_print, "router/merge.py", "print('merged')"),
    (nothing_unfinished, "router/merge.py", "x = 1  # TO" + "DO: merge"),
)

GOOD: tuple[tuple[Rule, str, str], ...] = (
    (import_direction, "rangefinder/cli/up.py", "import router.config, rangefinder.storage"),
    (import_direction, "rangefinder/cli/up.py", "from . import output"),
    (import_direction, "router/merge.py", "import routers, numpy"),
    (import_direction, "tests/test_up.py", "from rangefinder.cli import main"),
    (purity, "rangefinder/keys.py", "import timeit\nfrom rangefinder import hashing"),
    (purity, "rangefinder/storage.py", "import os"),
    (vendor_place, "rangefinder/edge/server.py", "import grpc"),
    (vendor_place, "tests/test_edge.py", "import grpc, yaml, requests"),
    (vendor_place, "router/merge.py", "import math, numpy as np\nfrom rangefinder import keys"),
    (message_place, "router/merge.py", "if TYPE_CHECKING:\n    from rangefinder.v1 import types_pb2"),
    (message_place, "rangefinder/edge/status.py", "from rangefinder.v1 import types_pb2"),
    (file_size, "router/merge.py", "\n" * 450),
    (function_size, "tests/test_up.py", f"def f():\n{LONG_BODY}"),
    (function_size, "router/merge.py", f"def f():\n    '''Says.\n{LONG_BODY}    '''"),
    (vague_name, "router/database.py", "class Metadata: ..."),
    (module_docstring, "router/__init__.py", ""),
    (durable_step, "rangefinder/storage.py", "os.fsync(file.fileno())"),
    (durable_step, "router/merge.py", "name.replace('a', 'b')\nreplace(node, zone='')"),
    (durable_step, "router/merge.py", "moment.replace(tzinfo=UTC)\ndataclasses.replace(a, b=1)"),
    (no_print, "rangefinder/cli/up.py", "print('READY')"),
    (no_print, "router/merge.py", "self.print('merged')"),
    (nothing_unfinished, "router/merge.py", "state = xxhash.xxh3_128()  # XXH3."),
)


@pytest.mark.parametrize(("rule", "path", "source"), BAD)
def test_a_breach_is_found(rule: Rule, path: str, source: str) -> None:
    """Each rule bites: the snippet breaks it once."""
    assert len(list(rule(Module.parse(path, source)))) == 1


@pytest.mark.parametrize(("rule", "path", "source"), GOOD)
def test_what_is_allowed_is_no_breach(rule: Rule, path: str, source: str) -> None:
    """No rule bites what only looks like a breach."""
    assert not list(rule(Module.parse(path, source)))
