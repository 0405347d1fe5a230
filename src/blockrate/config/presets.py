"""Configs that have a name: presets, and examples with their photographs. They are here in a clone and in a package."""

import difflib
import re
from collections.abc import Iterable, Sequence
from os.path import expanduser
from pathlib import Path

from blockrate.config.gallery import preset_order
from blockrate.config.near_files import missing_folder, near_files
from blockrate.config.reading import Json, read_object
from blockrate.core.errors import ConfigError

_PACKAGE = Path(__file__).parents[1]
_REPOSITORY = _PACKAGE.parents[1]
_DEMO = Path("examples", "demo.json")


def named() -> dict[str, Path]:
    """Return the files of the presets, those of models first, then of the examples, by name."""
    order = preset_order()
    files = sorted(
        (_PACKAGE / "config" / "presets").glob("*.json"),
        key=lambda file: (_place(file.stem, order), file.stem),
    )
    folder = examples()
    if folder:
        files += sorted(folder.glob("*.json"))
    return {file.stem: file for file in files}


def _place(name: str, order: Sequence[str]) -> int:
    """Return where a name stands in an order; behind all, if it does not."""
    return order.index(name) if name in order else len(order)


def earlier() -> dict[str, Path]:
    """Return the files of presets that are not offered any more, by name: configs and commands of before have them."""
    folder = _PACKAGE / "config" / "presets" / "earlier"
    return {file.stem: file for file in sorted(folder.glob("*.json"))}


def read(name: str) -> Json:
    """Return what a config file holds, or a preset or an example. Raises ConfigError, also if there is none."""
    file = Path(expanduser(name))
    try:
        # a folder that is called like an example does not hide it
        known = {**named(), **earlier()}
        is_file = file.is_file() or (file.exists() and name not in known)
    except OSError as error:
        problem = f"cannot be read: {error.strerror}"
        raise ConfigError(name, problem, "Check the path.") from error
    return read_object(file, pipes=True) if is_file else read_named(name)


def file_of(name: str) -> Path | None:
    """Return the config file that a name means; None for a preset or an example, and for what is no file to keep."""
    file = Path(expanduser(name))
    try:
        return file if file.is_file() else None
    except (OSError, ValueError):
        return None


def read_named(name: str) -> Json:
    """Return what a preset or an example holds; its photographs are found from any folder.

    Raises ConfigError that lists the names, if there is none of this name.
    """
    files = {**earlier(), **named()}
    if name not in files:
        problem = "there is no such file, preset or example"
        raise ConfigError(name, problem, _instead_of(name, named()))
    data = read_object(files[name])
    for concept in data.get("concepts", []):
        # its own photographs, not those of another folder of this name where we are
        photographs = files[name].parents[1] / concept["path"]
        if Path(concept["path"]).resolve() != photographs.resolve():
            concept["path"] = str(photographs)
    return data


def _instead_of(name: str, known: Iterable[str]) -> str:
    """Return what may have been meant by a name that is neither file nor preset nor example."""
    known = list(known)
    near = near_files(name) or difflib.get_close_matches(name, known, n=1)
    parts = [f"Did you mean {' or '.join(near)}?"] if near else []
    if re.match(r"[\w.]+=", name):
        parts.append(f"A setting is given behind the config: --set {name}.")
    parts.append(f"Known names: {', '.join(known)}.")
    folder = missing_folder(name)
    if folder:
        parts.append(f"There is no folder {Path(folder).absolute()}.")
    elif not Path(name).is_absolute():
        parts.append(f"Files are looked for in {Path.cwd()}.")
    return " ".join(parts)


def examples() -> Path | None:
    """Return the folder of the examples: of the package, or of the clone that this is; None where there are none."""
    for home in (_PACKAGE, _REPOSITORY):
        demo = home / _DEMO
        if demo.exists():
            return demo.parent
    return None


def clone() -> Path | None:
    """Return the folder of the clone that this runs from, None for a package that was installed."""
    home = examples()
    return home.parent if home and home.parent == _REPOSITORY else None
