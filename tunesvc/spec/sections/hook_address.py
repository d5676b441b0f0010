"""Addresses of hooks: a command or a URL, whose secrets are variables of the environment.

python deploy.py
https://deploy:$PASSWORD@example.org/hook?token=$TOKEN
$SLACK_URL
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from itertools import pairwise
from urllib.parse import parse_qsl, urlsplit

from tunesvc.errors import SpecError
from tunesvc.util.redaction import redacted

_VARIABLE = re.compile(r"\$(?:(\w+)|\{(\w+)\})")
_SECRET = re.compile(r"(?i)password|secret|token|api_?key|signature|^(key|sig|auth)$")
_SECRET_OPTION = re.compile(r"(?i)--?[\w-]*(password|secret|token|api[_-]?key)")


def is_url(address: str) -> bool:
    """Return True if promotions are posted to it: a URL, or a variable that holds one."""
    is_variable = _VARIABLE.fullmatch(address) is not None
    return is_variable or address.lower().startswith(("http://", "https://"))


def find_secret(address: str) -> str:
    """Return the name of a secret that an address contains; empty if there is none."""
    fixed = _VARIABLE.sub("", address)
    if redacted(fixed) != fixed:
        return "password"
    return _secret_of_url(address) if is_url(address) else _secret_of_command(address)


def has_variable(address: str) -> bool:
    """Return True if an address has a variable of the environment."""
    return _VARIABLE.search(address) is not None


def resolve(address: str, environment: Mapping[str, str]) -> str:
    """Return a URL with the values of its variables; a command as it is.

    Raises:
        SpecError: a variable is not set, or holds no URL; the text has no value of any.
    """
    if not is_url(address):
        return address

    def value(found: re.Match[str]) -> str:
        name = found[1] or found[2]
        if not environment.get(name):
            raise SpecError(f"the environment variable {name} is not set")
        return environment[name]

    resolved = _VARIABLE.sub(value, address)
    if not resolved.lower().startswith(("http://", "https://")):
        raise SpecError(f"{address} holds no http or https URL")
    return resolved


def _secret_of_url(address: str) -> str:
    try:
        parts = urlsplit(address)
    except ValueError:
        return ""  # it is no URL, which its first delivery says
    user, has_password, password = parts.netloc.rpartition("@")[0].partition(":")
    if not _is_open(password if has_password else user):
        return "password"
    for name, text in parse_qsl(parts.query):
        if _SECRET.search(name) and not _is_open(text):
            return name
    return ""


def _secret_of_command(command: str) -> str:
    try:
        words = shlex.split(command)
    except ValueError:
        return ""
    for word in words:
        option, _, text = word.partition("=")
        if _SECRET_OPTION.fullmatch(option) and not _is_open(text):
            return option
    for option, text in pairwise(words):
        if _SECRET_OPTION.fullmatch(option) and not text.startswith("-"):
            return option
    return ""


def _is_open(text: str) -> bool:
    """Return True if a text is no secret: it is empty, or a variable."""
    return not text or _VARIABLE.fullmatch(text) is not None
