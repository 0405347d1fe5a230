"""Who may write files, read from the source: what must not be lost is written durably, and nothing is pickled."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from support.sizes import tree
from support.source import FILES, imports, place_of

# What must not be lost is written by run/durable.py alone; the heartbeat (run/folder.py), log and events may be lost.
WRITERS = {
    "run/durable.py",
    "run/folder.py",
    # entries of an archive that is sent, and no file anywhere
    "ui/sample_zip.py",
}
APPENDERS = {
    "run/apart.py",
    "run/events.py",
    "engine/__main__.py",
    # pieces of what is on its way
    "ui/arrivals.py",
    "ui/uploads.py",
}
OURS = ("self", "session", "preferences", "queue")
WRITING_CALLS = {
    "torch.save",
    "numpy.save",
    "np.save",
    "json.dump",
    "os.replace",
    "os.rename",
    "shutil.move",
}


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
        place = place_of(file)
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
                wrong.append(f"{place_of(file)}:{node.lineno}: {name}")
        for call in ast.walk(tree(file)):
            if not isinstance(call, ast.Call):
                continue
            whole = ast.unparse(call.func)
            unsafe = whole in ("torch.load", "torch.save", "eval", "exec", "os.system")
            shell = any(
                word.arg == "shell" or (word.arg == "trust_remote_code")
                for word in call.keywords
            )
            if unsafe or shell:
                wrong.append(
                    f"{place_of(file)}:{call.lineno}: {ast.unparse(call)[:80]}"
                )
    assert not wrong, "\n".join(wrong)
