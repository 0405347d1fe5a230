"""The walls of the house, read from the source: who may import whom, how large things grow, who may write files."""

import ast
import io
import json
import re
import subprocess
import sys
import tokenize
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "blockrate"
FILES = sorted(SOURCE.rglob("*.py"))
SOURCES = [
    path for path in sorted(SOURCE.rglob("*")) if path.suffix in (".py", ".js", ".css")
]
STANDARD = sys.stdlib_module_names

SERVER = {"starlette", "fastapi", "uvicorn"}
# Which of our layers, and which packages of others, a layer may import. `engine` may import what it likes of others.
LAYERS = {
    "core": ({"core"}, set()),
    "models": ({"models", "core"}, {"numpy"}),
    "config": ({"config", "models", "core"}, {"pydantic"}),
    "dataset": ({"dataset", "config", "core"}, {"PIL"}),
    "run": ({"run", "config", "core"}, {"filelock", "psutil"}),
    "engine": ({"engine", "run", "dataset", "config", "models", "core"}, None),
    "ui": (
        {"ui", "run", "dataset", "config", "models", "core"},
        {*SERVER, "nicegui", "itsdangerous", "pydantic", "PIL", "psutil"},
    ),
    "cli": (
        {"cli", "ui", "run", "dataset", "config", "models", "core"},
        {"typer", "rich", "click"},
    ),
}
# What lies in a run folder, not who starts, watches and stops the engine.
ENGINE_SEES_OF_RUN = {
    f"blockrate.run.{name}" for name in ("folder", "events", "durable", "checkpoints")
}
SINGLE_BASE = {
    "Enum",
    "IntEnum",
    "StrEnum",
    "Protocol",
    "NamedTuple",
    "TypedDict",
    "Generic",
}

# What must not be lost is written by run/durable.py alone; the heartbeat (run/folder.py), log and events may be lost.
WRITERS = {"run/durable.py", "run/folder.py"}
APPENDERS = {"run/events.py", "run/process.py", "engine/__main__.py"}
OURS = ("self", "session", "preferences")
WRITING_CALLS = {
    "torch.save",
    "numpy.save",
    "np.save",
    "json.dump",
    "os.replace",
    "os.rename",
    "shutil.move",
}


EMPTY_TOKENS = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENDMARKER,
}


@cache
def tree(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"), filename=str(file))


def name_of(file: Path) -> str:
    parts = file.relative_to(SOURCE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def layer_of(module: str) -> str:
    """The layer of one of our modules; what lies beside cli.py belongs to it."""
    folder = module.split(".")[1] if "." in module else ""
    return folder if folder in LAYERS else "cli"


def imports(file: Path) -> Iterator[tuple[str, ast.stmt]]:
    """Every module a file imports, at its head or inside a function, not only for types."""
    for_types = {
        id(inner)
        for node in ast.walk(tree(file))
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for inner in ast.walk(node)
    }
    modules = {name_of(other) for other in FILES}
    for node in ast.walk(tree(file)):
        if id(node) in for_types:
            continue
        if isinstance(node, ast.Import):
            yield from ((alias.name, node) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, (
                f"{file}:{node.lineno}: write the whole name, not a relative import"
            )
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (
                (name if name in modules else str(node.module), node) for name in names
            )


def test_each_layer_imports_only_what_lies_below_it() -> None:
    wrong = []
    for file in FILES:
        module = name_of(file)
        if module == "blockrate":
            # the public surface, looked up on first use: a test below starts it
            continue
        ours, others = LAYERS[layer_of(module)]
        for name, node in imports(file):
            top = name.split(".")[0]
            if top == "blockrate":
                forbidden = name != "blockrate" and layer_of(name) not in ours
            else:
                forbidden = (
                    top not in STANDARD and others is not None and top not in others
                )
            if forbidden:
                wrong.append(
                    f"{file.relative_to(ROOT)}:{node.lineno}: {layer_of(module)} must not import {name}"
                )
    assert not wrong, "\n".join(wrong)


def test_the_engine_meets_a_run_only_through_its_folder() -> None:
    wrong = [
        f"{file.relative_to(ROOT)}:{node.lineno}: {name}"
        for file in FILES
        if layer_of(name_of(file)) == "engine"
        for name, node in imports(file)
        if name.startswith("blockrate.run") and name not in ENGINE_SEES_OF_RUN
    ]
    assert not wrong, "\n".join(wrong)


def test_no_module_imports_itself_by_a_detour() -> None:
    edges = {
        name_of(file): {
            name for name, _ in imports(file) if name.startswith("blockrate.")
        }
        for file in FILES
    }
    finished: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " -> ".join([*path[path.index(module) :], module])
        if module not in finished:
            for other in sorted(edges.get(module, set())):
                visit(other, (*path, module))
            finished.add(module)

    for module in edges:
        visit(module, ())


def test_starting_and_asking_for_help_load_nothing_heavy() -> None:
    code = """
import contextlib, json, sys
sys.argv = ["blockrate", "--help"]
heavy = ("torch", "pydantic", "nicegui", "diffusers", "transformers")
loaded = lambda: [name for name in heavy if name in sys.modules]
import blockrate
facts = [loaded()]
blockrate.BlockLayout, blockrate.check_multipliers, blockrate.ConfigError
facts.append(loaded())
from blockrate.cli.commands import main
with contextlib.suppress(SystemExit):
    main()
print(json.dumps([*facts, loaded()]), file=sys.stderr)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    after_import, after_names, after_help = json.loads(done.stderr)
    assert after_import == []
    assert after_names == []
    assert set(after_help) <= {"pydantic"}
    assert "train" in done.stdout


def test_the_app_loads_no_torch() -> None:
    code = """
import importlib, pkgutil, sys
import blockrate.ui
modules = [module.name for module in pkgutil.walk_packages(blockrate.ui.__path__, "blockrate.ui.")]
assert "blockrate.ui.app" in modules
for name in modules:
    importlib.import_module(name)
print(*(name for name in ("torch", "diffusers", "transformers", "safetensors") if name in sys.modules))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []


def test_every_config_field_says_what_it_is() -> None:
    from pydantic import BaseModel

    from blockrate.config.train_config import TrainConfig

    silent: list[str] = []
    seen: set[type] = set()

    def look(model: type[BaseModel]) -> None:
        seen.add(model)
        for name, field in model.model_fields.items():
            if not (field.description or "").strip():
                silent.append(f"{model.__name__}.{name}")
            for inner in models_in(field.annotation):
                if inner not in seen:
                    look(inner)

    def models_in(annotation: object) -> Iterator[type[BaseModel]]:
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            yield annotation
        for argument in getattr(annotation, "__args__", ()):
            yield from models_in(argument)

    look(TrainConfig)
    assert len(seen) > 4, "the nested models were not found"
    assert not silent, silent


def test_files_and_functions_stay_small() -> None:
    wrong = []
    for file in SOURCES:
        lines = len(file.read_text(encoding="utf-8").splitlines())
        if lines > 480:
            wrong.append(f"{file.relative_to(ROOT)}: {lines} lines, at most 480")
        if file.suffix != ".py":
            continue
        for node in ast.walk(tree(file)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                assert node.end_lineno is not None
                length = node.end_lineno - node.lineno + 1
                if length > 70:
                    wrong.append(
                        f"{file.relative_to(ROOT)}:{node.lineno}: {node.name} has {length} lines, at most 70"
                    )
    assert not wrong, "\n".join(wrong)


def lines_of_code(file: Path) -> set[int]:
    """The numbers of the lines that hold code: no blank ones, no comments, no docstrings."""
    text = file.read_text(encoding="utf-8")
    if file.suffix != ".py":
        comments = re.finditer(
            r"/\*.*?\*/|(?<=^)\s*//[^\n]*$", text, re.DOTALL | re.MULTILINE
        )
        for comment in reversed(list(comments)):
            text = (
                text[: comment.start()]
                + re.sub(r"[^\n]", " ", comment[0])
                + text[comment.end() :]
            )
        return {number for number, line in enumerate(text.splitlines()) if line.strip()}
    lines = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in EMPTY_TOKENS:
            lines |= set(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(tree(file)):
        if (
            isinstance(
                node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
            )
            and node.body
        ):
            first = node.body[0]
            if (
                isinstance(first, ast.Expr)
                and isinstance(first.value, ast.Constant)
                and isinstance(first.value.value, str)
            ):
                assert first.end_lineno is not None
                lines -= set(range(first.lineno, first.end_lineno + 1))
    return lines


def test_lines_of_code_are_counted_without_what_explains_them(tmp_path: Path) -> None:
    python = tmp_path / "a.py"
    script = tmp_path / "a.js"
    python.write_text(
        '"""Module.\n\nMore.\n"""\n\nx = """a\nb"""  # why\n\n\ndef f():\n    """Doc."""\n    # why\n    return x\n'
    )
    script.write_text(
        "/* why\n   so */\nlet a = 1; // why\n// why\n\nlet b = 'http://x';\n/* x */ let c = 2;\n"
    )
    assert len(lines_of_code(python)) == 4
    assert len(lines_of_code(script)) == 3


def test_no_class_has_two_bases() -> None:
    wrong = []
    for file in FILES:
        for node in ast.walk(tree(file)):
            if isinstance(node, ast.ClassDef):
                bases = {
                    ast.unparse(base).split("[")[0].split(".")[-1]
                    for base in node.bases
                }
                if len(bases) > 1 and not bases & SINGLE_BASE:
                    wrong.append(
                        f"{file.relative_to(ROOT)}:{node.lineno}: {node.name} has {sorted(bases)}"
                    )
    assert not wrong, "\n".join(wrong)


def write_calls(file: Path) -> Iterator[tuple[ast.Call, str]]:
    """The calls that write a file which stays: (call, "append", "library" or "write")."""
    in_memory = "BytesIO" in file.read_text(encoding="utf-8")
    passing = {
        id(inner)
        for node in ast.walk(tree(file))
        if isinstance(node, ast.With)
        and any("TemporaryDirectory(" in ast.unparse(item) for item in node.items)
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree(file)):
        if not isinstance(node, ast.Call) or id(node) in passing:
            continue
        called = (
            node.func.attr
            if isinstance(node.func, ast.Attribute)
            else getattr(node.func, "id", "")
        )
        whole = ast.unparse(node.func)
        if re.search(rf"(^|[._])({'|'.join(OURS)})\.{called}$", whole):
            continue  # a method of ours, which is looked at where it stands
        mode = open_mode(node)
        if called == "open" and whole != "os.open" and set(mode) & set("wax+"):
            yield node, "append" if set(mode) <= set("abt") else "write"
        elif whole == "os.open" and "O_RDONLY" not in mode:
            yield node, "write"
        elif called in ("save_file", "save_pretrained"):
            yield node, "library"
        elif (
            called in ("write_text", "write_bytes", "serialize_file", "rename")
            or whole in WRITING_CALLS
        ):
            yield node, "write"
        elif (
            called == "save"
            and isinstance(node.func, ast.Attribute)
            and "safetensors" not in whole
            and not in_memory
        ):
            yield node, "write"  # an image's, unless it goes into memory


def open_mode(call: ast.Call) -> str:
    """The mode of an `open`: the second argument, but the first of `Path.open`; flags as they are written."""
    whole = ast.unparse(call.func)
    place = 1 if whole in ("open", "io.open", "os.open") else 0
    given = [word.value for word in call.keywords if word.arg == "mode"] + call.args[
        place : place + 1
    ]
    if not given:
        return "r"
    return (
        str(given[0].value)
        if isinstance(given[0], ast.Constant)
        else ast.unparse(given[0])
    )


def test_only_durable_writes_files() -> None:
    wrong = []
    for file in FILES:
        place = file.relative_to(SOURCE).as_posix()
        commits = "commit_folder(" in file.read_text(encoding="utf-8")
        for call, kind in write_calls(file):
            # a library may fill a temporary folder, which run/durable.py then makes safe and final
            allowed = (kind == "library" and commits) or (
                kind == "append" and place in APPENDERS
            )
            if place not in WRITERS and not allowed:
                wrong.append(
                    f"src/blockrate/{place}:{call.lineno}: {ast.unparse(call)[:80]}"
                )
    assert not wrong, "\n".join(wrong)


def test_nothing_is_pickled_or_run_from_a_string() -> None:
    wrong = []
    for file in FILES:
        for name, node in imports(file):
            if name.split(".")[0] in {
                "pickle",
                "dill",
                "cloudpickle",
                "shelve",
                "marshal",
            }:
                wrong.append(f"{file.relative_to(ROOT)}:{node.lineno}: {name}")
        for node in ast.walk(tree(file)):
            if not isinstance(node, ast.Call):
                continue
            whole = ast.unparse(node.func)
            unsafe = whole in ("torch.load", "torch.save", "eval", "exec", "os.system")
            shell = any(
                word.arg == "shell" or (word.arg == "trust_remote_code")
                for word in node.keywords
            )
            if unsafe or shell:
                wrong.append(
                    f"{file.relative_to(ROOT)}:{node.lineno}: {ast.unparse(node)[:80]}"
                )
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("word", ["TODO", "FIXME", "XXX", "HACK"])
def test_nothing_is_left_for_later(word: str) -> None:
    places = [file for file in FILES if word in file.read_text(encoding="utf-8")]
    assert not places
