"""A study in the making, and what of its source could not be carried."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tunesvc.errors import SpecError
from tunesvc.spec.diagnostics import LocatedIssue, TextPosition, printable, render
from tunesvc.spec.yaml.document import to_yaml
from tunesvc.spec.yaml.parser import LINE_BREAKS

GUESS = "python train.py"
TRIALS = 100


@dataclass
class Draft:
    """A study in the making. Whatever a format does not carry is noted."""

    filename: str
    text: str = ""
    """Name of the source; empty for objects of Python."""
    program: str | None = None
    """The objective that the user names: an entrypoint or a command."""
    folder: Path | None = None
    """Folder of the files that the source names; None for a source from the network."""
    data: dict[str, Any] = field(default_factory=dict)
    """The study, with the keys of a study file."""
    notes: list[tuple[int, str]] = field(default_factory=list)
    """Lines, 0 without one, and what is not carried there."""
    issues: list[LocatedIssue] = field(default_factory=list)

    def note(self, line: int, text: str) -> None:
        """Note what is not carried."""
        self.notes.append((line, text))

    def refuse(self, position: TextPosition, text: str) -> None:
        """Note a mistake, with which there is no study."""
        self.issues.append(LocatedIssue(position, text))

    def check(self) -> None:
        """Raise the mistakes.

        Raises:
            SpecError: there are some; the text lists them with their lines.
        """
        if self.issues:
            raise SpecError(render(self.issues, LINE_BREAKS.split(self.text), self.filename))

    def add_parameter(self, name: str, dimension: Mapping[str, Any] | None) -> None:
        """Add a parameter; None is one that was refused."""
        if dimension is not None:
            known = self.data.setdefault("parameters", {})
            known[name] = {**dimension, **known.get(name, {})}  # a condition may be known already

    def add_constant(self, name: str, value: Any) -> None:
        """Add a constant argument."""
        self.data.setdefault("constants", {})[name] = value

    def names(self) -> list[str]:
        """Return the names of all arguments of the objective."""
        return [*self.data.get("parameters", {}), *self.data.get("constants", {})]

    def set_program(self, words: Sequence[str] | None, option: str = "${{--{name}}}") -> None:
        """Set what a trial runs.

        Args:
            words: the program and its arguments; None if the source names none, so that the options
                are added to the user's, or to a guess.
            option: pattern of the argument for each parameter.
        """
        if self.program is not None and ":" in self.program and " " not in self.program:
            self.data["entrypoint"] = self.program
            return
        if self.program is None and words is not None:
            self.data["command"] = list(words)
            return
        if self.program is None:
            self.note(0, f"it names no program: `{GUESS}` is a guess, `--program` names yours")
        options = [option.format(name=name) for name in self.names()]
        self.data["command"] = [*(self.program or GUESS).split(), *options]

    def set_defaults(self, name: str) -> None:
        """Set a name and a budget where the source has none."""
        self.data.setdefault("name", name)
        if "budget" not in self.data:
            self.note(0, f"it has no limit: `budget: {{trials: {TRIALS}}}` is a guess")
            self.data["budget"] = {"trials": TRIALS}

    def noted_lines(self) -> list[str]:
        """Return the notes as text, in the order of the source."""
        return [f"line {line}: {text}" if line else text for line, text in sorted(self.notes)]

    def study_text(self, title: str) -> str:
        """Return the study file, with the notes as comments."""
        head = f"# Imported by `tune import` from {printable(self.filename)}, {title}."
        kept = [f"#   {printable_note(text)}" for text in self.noted_lines()]
        lines = [head, *(["# Not carried as it was:", *kept] if kept else []), ""]
        first = ("name", "description", "entrypoint", "command", "metric", "metrics", "parameters")
        ordered = {key: self.data[key] for key in first if key in self.data}
        return "\n".join(lines) + to_yaml({**ordered, **self.data})


def printable_note(text: str) -> str:
    """Return a note as one line that cannot end its comment."""
    return "".join(char if char.isprintable() else " " for char in text)
