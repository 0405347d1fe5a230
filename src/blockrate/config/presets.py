"""Configs that have a name: presets, and examples with their photographs. They are here in a clone and in a package."""

from pathlib import Path

from blockrate.config.files import read_object
from blockrate.config.onetrainer import Json
from blockrate.core.errors import ConfigError

_PACKAGE = Path(__file__).parents[1]
_REPOSITORY = _PACKAGE.parents[1]
_DEMO = Path("examples", "demo.json")


def named() -> dict[str, Path]:
    """Return the files of the presets, then of the examples, by name."""
    files = sorted((_PACKAGE / "config" / "presets").glob("*.json"))
    folder = examples()
    if folder:
        files += sorted(folder.glob("*.json"))
    return {file.stem: file for file in files}


def read(name: str) -> Json:
    """Return what a config file holds, or a preset or an example. Raises ConfigError, also if there is none."""
    file = Path(name)
    # a folder that is called like an example does not hide it
    if file.is_file() or (file.exists() and name not in named()):
        return read_object(file)
    return read_named(name)


def read_named(name: str) -> Json:
    """Return what a preset or an example holds; its photographs are found from any folder.

    Raises ConfigError that lists the names, if there is none of this name.
    """
    files = named()
    if name not in files:
        cure = f"Known names: {', '.join(files)}."
        raise ConfigError(name, "there is no such file, preset or example", cure)
    data = read_object(files[name])
    for concept in data.get("concepts", []):
        # its own photographs, not those of another folder of this name where we are
        photographs = files[name].parents[1] / concept["path"]
        if Path(concept["path"]).resolve() != photographs.resolve():
            concept["path"] = str(photographs)
    return data


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
