"""Help texts that fit every width of the terminal."""

from __future__ import annotations

from typing import Any

from typer.core import TyperCommand, TyperGroup


class HelpCommand(TyperCommand):
    """A command with help that fills the terminal's width."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        tidy_help(self)

    def get_help_option(self, ctx: Any) -> Any:
        """Return `--help` as a switch, without a type."""
        return without_type(super().get_help_option(ctx))


def tidy_help(command: TyperCommand | TyperGroup) -> None:
    """Leave line breaks to the terminal, and remove the type of switches, which take no value."""
    paragraphs = (command.help or "").split("\n\n")
    command.help = "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)
    for param in command.params:
        without_type(param)


def without_type(param: Any) -> Any:
    """Return an option; a switch loses its type."""
    if getattr(param, "is_flag", False):
        param.metavar = ""
    return param
