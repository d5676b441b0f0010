"""`${name}` and `${--name}` in the arguments of a `command`. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection

PLACEHOLDER = re.compile(r"\$(\$(?=\{)|\{([^}]*)\})")
"""`${name}` in group 2, or the `$${` that stands for `${`."""
_OPTION = re.compile(r"\$\{--([^}]+)\}")


def names_in(argument: str) -> list[str]:
    """Return the names of the values in an argument."""
    return [match[2] for match in PLACEHOLDER.finditer(argument) if match[2] is not None]


def option_in(argument: str, known: Collection[str]) -> str | None:
    """Return the `name` of an argument `${--name}`; None for any other argument.

    Args:
        argument: as in the study file.
        known: parameters and constants; one that is itself called `--name` is a value.
    """
    match = _OPTION.fullmatch(argument)
    return None if match is None or f"--{match[1]}" in known else match[1]


def parameter_of(option: str, known: Collection[str]) -> str:
    """Return the parameter of an option: `learning_rate` is that of `--learning-rate`, as in
    argparse."""
    return option if option in known else option.replace("-", "_")
