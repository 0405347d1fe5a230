"""The walls of the house, read from the source: who may import whom, and how large things grow."""

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from support.sizes import ROOT, Size, code_tokens, lines_of_code, sizes, tree
from support.source import FILES, SOURCES, imports, name_of, place_of

STANDARD = sys.stdlib_module_names

SERVER = {"starlette", "fastapi", "uvicorn"}
# Which of our layers, and which packages of others, a layer may import. `engine` may import what it likes of others.
# `blockrate` is the package itself: nobody imports it, and its public names are looked up on first use.
LAYERS = {
    "blockrate": ({"core"}, set()),
    "core": ({"core"}, set()),
    "models": ({"models", "core"}, {"numpy", "huggingface_hub", "tokenizers"}),
    "config": ({"config", "models", "core"}, {"pydantic"}),
    "dataset": ({"dataset", "config", "core"}, {"PIL"}),
    "run": ({"run", "config", "core"}, {"filelock", "psutil", "pynvml"}),
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
    f"blockrate.run.{name}"
    for name in (
        "folder",
        "events",
        "durable",
        "checkpoints",
        "rate_commands",
        "easel",
        "results",
        "saved_state",
        "signs_of_life",
        "probe_file",
    )
}
# Where a library may be imported: what we hand around are torch's tensors and modules, and a change of a library's
# names is then a change in one room.
MODELS = ("engine/models/", "engine/adapters/", "engine/optimizers.py")
LIBRARY_ROOMS = {
    "diffusers": MODELS,
    "transformers": MODELS,
    "peft": MODELS,
    "torch.distributed": ("engine/ranks.py",),
    "torch": ("engine/",),
}
# Only here stands what holds for one family of models and for no other ...
KNOW_FAMILIES = ("models/", "engine/models/")
# ... and, to people, in words here.
NAME_FAMILIES = {
    "config/model_config.py": "OneTrainer's values of model_type; the default model",
    "config/train_config.py": "what a setting does for the models that people know",
    "config/parts.py": "what a field means for the models that people know",
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

# The most that a reader takes in at once. JavaScript and CSS: the lines of a file.
FUNCTION = Size("a function", lines=50, tokens=300)
FILE = Size("a file", lines=400, tokens=2500)


def layer_of(module: str) -> str:
    """The layer of one of our modules; a file beside the rooms belongs to cli/."""
    if module == "blockrate":
        return module
    folder = module.split(".")[1]
    return folder if folder in LAYERS else "cli"


def test_each_layer_imports_only_what_lies_below_it() -> None:
    wrong = []
    for file in FILES:
        ours, others = LAYERS[layer_of(name_of(file))]
        for name, node in imports(file):
            top = name.split(".")[0]
            if top == "blockrate":
                forbidden = layer_of(name) not in ours
            else:
                forbidden = (
                    top not in STANDARD and others is not None and top not in others
                )
            if forbidden:
                place = place_of(file)
                wrong.append(f"{place}: line {node.lineno} imports {name}")
    assert not wrong, "\n".join(wrong)


def test_a_library_is_imported_where_its_names_may_stand() -> None:
    wrong = []
    for file in FILES:
        place = place_of(file)
        for name, node in imports(file):
            if not place.startswith(rooms_of(name)):
                wrong.append(f"src/blockrate/{place}:{node.lineno}: {name}")
    assert not wrong, "\n".join(wrong)


def rooms_of(module: str) -> tuple[str, ...]:
    """How the paths of the files begin that may import a module; empty for all of them."""
    for library, rooms in LIBRARY_ROOMS.items():
        if f"{module}.".startswith(f"{library}."):
            return rooms
    return ("",)


def test_ranks_alone_knows_of_other_processes() -> None:
    wrong = [
        f"{file.relative_to(ROOT)}:{node.lineno}"
        for file in FILES
        if place_of(file) not in LIBRARY_ROOMS["torch.distributed"]
        for node in ast.walk(tree(file))
        if isinstance(node, ast.ImportFrom | ast.Attribute)
        and any(name.startswith("torch.distributed") for name in named_by(node))
    ]
    assert not wrong, "\n".join(wrong)


def named_by(node: ast.ImportFrom | ast.Attribute) -> list[str]:
    """What is named of a library: an attribute, or what is taken from a module."""
    if isinstance(node, ast.ImportFrom):
        return [f"{node.module}.{alias.name}" for alias in node.names]
    return [ast.unparse(node)]


def test_the_engine_meets_a_run_only_through_its_folder() -> None:
    wrong = [
        f"{file.relative_to(ROOT)}:{node.lineno}: {name}"
        for file in FILES
        if layer_of(name_of(file)) == "engine"
        for name, node in imports(file)
        if name.startswith("blockrate.run") and name not in ENGINE_SEES_OF_RUN
    ]
    assert not wrong, "\n".join(wrong)


def names_of_families() -> tuple[set[str], list[str]]:
    """What families are called, without signs and in small letters; how diffusers' classes for them begin."""
    from blockrate.models.families import ARCHITECTURES, FACTS_FILES, FAMILIES

    names = {Path(name).stem for name in FACTS_FILES} | ARCHITECTURES.keys()
    for family in FAMILIES.values():
        names |= {family.name, family.title, family.model_type, family.called}
    classes = [facts["class"] for facts in ARCHITECTURES.values()]
    starts = [name.partition("Transformer")[0] for name in classes]
    return {plain(name) for name in names if name}, starts


def plain(text: str) -> str:
    return re.sub(r"[^a-z0-9]", "", text.lower())


def words_of_code(file: Path) -> Iterator[tuple[str, int]]:
    """Every identifier and string of a file with its line; what explains the code is left out."""
    explaining = {
        id(node.body[0].value)
        for node in ast.walk(tree(file))
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree(file)):
        if id(node) in explaining:
            continue
        match node:
            case ast.Constant(value=str(text)):
                yield text, node.lineno
            case ast.Name(id=name) | ast.Attribute(attr=name):
                yield name, node.lineno
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                yield name, node.lineno
            case ast.arg(arg=name) | ast.keyword(arg=str(name)):
                yield name, node.lineno
            case ast.Import(names=modules) | ast.ImportFrom(names=modules):
                where = getattr(node, "module", None) or ""
                for module in modules:
                    yield f"{where} {module.name} {module.asname}", node.lineno


def test_no_file_outside_the_rooms_of_models_names_a_family() -> None:
    names, starts = names_of_families()
    class_name = re.compile(rf"\b(?:{'|'.join(starts)})[A-Z]")
    wrong = []
    needless = set(NAME_FAMILIES)
    for file in FILES:
        place = place_of(file)
        if place.startswith(KNOW_FAMILIES):
            continue
        for text, line in words_of_code(file):
            if class_name.search(text) or any(name in plain(text) for name in names):
                needless.discard(place)
                if place not in NAME_FAMILIES:
                    wrong.append(f"src/blockrate/{place}:{line}: {text[:60]!r}")
    assert not wrong, "\n".join(wrong)
    assert not needless, f"name no family any more: {needless}"


def test_events_are_read_as_what_they_are() -> None:
    """`read_events` and `last_event` parse each line; nobody else opens the file or takes a line apart."""
    wrong = [
        place_of(file)
        for file in FILES
        if place_of(file) != "run/events.py"
        and re.search(r"events_file\.(open|read)", code_of(file))
    ]
    assert not wrong


def code_of(file: Path) -> str:
    """The code of a file, without what explains it."""
    return " ".join(token.string for token in code_tokens(file)).replace(" . ", ".")


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
blockrate.complete, blockrate.layer_wise_decay, blockrate.only, blockrate.parse_selection
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


def too_large() -> dict[str, str]:
    """Files, and functions of files, beyond the fences, with what they measure."""
    found = {}
    for file in SOURCES:
        name = place_of(file)
        if file.suffix != ".py":
            lines = file.read_text(encoding="utf-8").count("\n")
            if lines > FILE.lines:
                found[name] = f"{lines} lines"
            continue
        for size in sizes(file):
            fence = FUNCTION if size.function else FILE
            if size.lines > fence.lines or size.tokens > fence.tokens:
                whose = f"{name}: {size.function}" if size.function else name
                found[whose] = f"{size.lines} lines, {size.tokens} tokens"
    return found


def test_files_and_functions_stay_small() -> None:
    assert not too_large(), f"beyond {FUNCTION} or {FILE}"


def test_tokens_are_counted_without_what_explains_them(tmp_path: Path) -> None:
    file = tmp_path / "a.py"
    file.write_text(
        '"""Module.\n\nMore.\n"""\n\nx = """a\nb"""  # why\n\n\ndef f():\n    """Doc."""\n    # why\n    return x\n'
    )
    # x = "a b" and def f ( ) : return x
    assert list(sizes(file)) == [Size("", 13, 10), Size("f", 4, 7)]
    assert lines_of_code(code_tokens(file)) == {6, 7, 10, 13}


def test_nothing_stands_where_it_is_never_reached() -> None:
    """As two versions of a function may be put together: the second half stands there and does nothing."""
    ends = (ast.Return, ast.Raise, ast.Continue, ast.Break)
    dead = []
    for file in FILES:
        for node in ast.walk(tree(file)):
            for _, lines in ast.iter_fields(node):
                if isinstance(lines, list):
                    dead += [
                        f"{file.relative_to(ROOT)}:{after.lineno}"
                        for line, after in pairwise(lines)
                        if isinstance(line, ends)
                    ]
    assert not dead, "\n".join(dead)


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


@pytest.mark.parametrize("word", ["TODO", "FIXME", "XXX", "HACK"])
def test_nothing_is_left_for_later(word: str) -> None:
    places = [file for file in FILES if word in file.read_text(encoding="utf-8")]
    assert not places
