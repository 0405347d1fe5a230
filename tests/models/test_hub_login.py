"""The login to the hub, against a hub of our own on this machine and against none."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.http_answers import run_python
from support.known_token import GOOD, hub_that_knows_one


@pytest.fixture(scope="module")
def hub() -> Iterator[str]:
    with hub_that_knows_one() as address:
        yield address


CODE = """
import sys
from blockrate.core.errors import ConfigError
from blockrate.models.hub import is_logged_in
from blockrate.models.hub_login import log_in, log_out, logged_in_as

def tried(token):
    try:
        return log_in(token)
    except ConfigError as error:
        return str(error)

print(repr(logged_in_as()), is_logged_in())
for token in sys.argv[1:]:
    print(tried(token), is_logged_in())
print(repr(logged_in_as()))
print(repr(log_out()), repr(logged_in_as()), is_logged_in())
"""


def lines(folder: Path, hub: str, *tokens: str, **more: str) -> list[str]:
    settings = {"HF_ENDPOINT": hub, "HF_HOME": str(folder / "hf"), **more}
    done = run_python(folder, ["-c", CODE, *tokens], **settings)
    assert done.returncode == 0, done.stderr
    assert GOOD not in done.stdout + done.stderr
    return done.stdout.splitlines()


def test_a_token_is_stored_where_the_hub_keeps_it_and_forgotten(
    tmp_path: Path, hub: str
) -> None:
    told = lines(tmp_path, hub, "hf_unknown00", "no token", f" {GOOD} ")
    assert told == [
        "'' False",
        "Token: is none that the hub knows. Copy it anew, the whole of it. False",
        "Token: is not one of the hub's. Copy it from https://huggingface.co/settings/tokens. False",
        "ada True",
        "'ada'",
        "'' '' False",
    ]
    left = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert [file for file in left if GOOD in file.read_text()] == []


def test_without_a_network_nothing_is_stored_and_that_is_said(tmp_path: Path) -> None:
    told = lines(tmp_path, "http://127.0.0.1:9", GOOD)
    assert told[1] == (
        "Token: is not stored: the hub was not reached to ask whose it is. Try again with a network. False"
    )
    offline = lines(tmp_path, "http://127.0.0.1:9", GOOD, HF_HUB_OFFLINE="1")
    assert offline[1] == (
        "Token: is not stored: HF_HUB_OFFLINE is set, so the hub is not asked. Start the app without it. False"
    )


def test_a_login_of_the_environment_cannot_be_ended_here(
    tmp_path: Path, hub: str
) -> None:
    told = lines(tmp_path, hub, HF_TOKEN=GOOD)
    assert told[0] == "'ada' True"
    assert told[-1].startswith("'HF_TOKEN is set where the app was started")
