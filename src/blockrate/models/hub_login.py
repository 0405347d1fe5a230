"""The login to the hub, kept where the hub's own library and its command keep it, and nowhere else.

Its client is imported where it is used. All of it asks the network or the disk: for threads. No token is ever part of
what is returned or raised.
"""

import re

from blockrate.core.errors import ConfigError

_FIELD = "Token"


def log_in(token: str) -> str:
    """Ask the hub whose a token is, store it, and return the name. Raises ConfigError if it is not stored."""
    token = token.strip()
    if not re.fullmatch(r"[!-~]{8,500}", token):
        problem = "is not one of the hub's"
        cure = "Copy it from https://huggingface.co/settings/tokens."
        raise ConfigError(_FIELD, problem, cure)
    import huggingface_hub

    try:
        huggingface_hub.login(
            token, add_to_git_credential=False, skip_if_logged_in=False
        )
    except Exception as error:  # its client's, its transport's, the disk's
        # not from it: its request holds the token
        raise _refusal(error) from None
    return logged_in_as() or "?"


def log_out() -> str:
    """Forget the login that is in use; return what still stands against that, nothing if it is gone."""
    import huggingface_hub
    from huggingface_hub.utils._auth import get_stored_tokens

    now = huggingface_hub.get_token()
    stored = get_stored_tokens()
    names = [name for name, token in stored.items() if token == now]
    # a token that was stored without a name is the one in use
    forgotten: list[str | None] = [*names] or [None]
    try:
        for name in forgotten:
            huggingface_hub.logout(name)
    except OSError:
        return "HF_TOKEN is set where the app was started, and logs in all the same."
    return ""


def logged_in_as() -> str:
    """Return whose the login is as the hub says; nothing without one, "?" where the hub was not reached or refuses."""
    import huggingface_hub

    token = huggingface_hub.get_token()
    if not token:
        return ""
    try:
        return str(huggingface_hub.whoami(token)["name"])
    except Exception:  # as above; whether it is still good, only the hub knows
        return "?"


def _refusal(error: Exception) -> ConfigError:
    """Return why a token is not stored, without what the client says of its request."""
    from huggingface_hub import is_offline_mode

    status = getattr(getattr(error, "response", None), "status_code", 0)
    if isinstance(error, ValueError) or status in (401, 403):
        problem = "is none that the hub knows"
        return ConfigError(_FIELD, problem, "Copy it anew, the whole of it.")
    if isinstance(error, PermissionError):
        problem = "could not be stored: its folder cannot be written to"
        return ConfigError(_FIELD, problem, "Choose another with HF_HOME.")
    if is_offline_mode():
        problem = "is not stored: HF_HUB_OFFLINE is set, so the hub is not asked"
        cure = "Start the app without it."
        return ConfigError(_FIELD, problem, cure)
    problem = "is not stored: the hub was not reached to ask whose it is"
    return ConfigError(_FIELD, problem, "Try again with a network.")
