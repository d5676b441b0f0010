"""Makes a study of another tuner's file: finds the format, converts, and checks the result."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Protocol

from tunesvc.errors import SpecError
from tunesvc.foreign.draft import Draft
from tunesvc.foreign.formats import (
    ax_space,
    determined_experiment,
    hydra_sweeper,
    katib_experiment,
    nni_experiment,
    ray_tuner,
    syne_space,
    wandb_sweep,
)
from tunesvc.foreign.python_source import as_json, is_python, load_object
from tunesvc.foreign.section import Section
from tunesvc.foreign.source import is_url, read_text, section_of
from tunesvc.spec.yaml.document import SpecCheck, parse
from tunesvc.util.suggestions import suggest


class Format(Protocol):
    """A module of `formats`."""

    TITLE: str
    """The kind of file, for texts."""

    def recognises(self, top: Section) -> bool:
        """Return True for a file of this format."""

    def convert(self, top: Section, draft: Draft) -> None:
        """Fill the draft, and note what is not carried."""


FORMATS: Mapping[str, Format] = {
    "wandb": wandb_sweep,
    "katib": katib_experiment,
    "hydra": hydra_sweeper,
    "determined": determined_experiment,
    "nni": nni_experiment,
    "syne": syne_space,
    "ax": ax_space,
}
"""Formats by name, in the order in which they are tried."""


def import_study(
    source: str,
    format: str | None = None,
    program: str | None = None,
    extra_check: SpecCheck | None = None,
) -> tuple[str, list[str]]:
    """Return a study file, and what could not be carried, line by line.

    Args:
        source: a file or an address; of Python, `FILE.py` or `FILE.py:NAME`.
        format: its name, if it is not to be recognised by its keys.
        program: the objective, where the source names none or another one.
        extra_check: as in `tunesvc.spec.yaml.document.parse`.

    Raises:
        SpecError: it cannot be read, or not carried; the text lists every mistake with its line.
    """
    draft, title = (_of_python if is_python(source) else _of_file)(source, format, program)
    draft.check()
    draft.set_defaults(re.sub(r"[^\w.-]+", "-", PurePosixPath(draft.filename).stem) or "study")
    made = draft.study_text(title)
    try:
        parse(made, "study.yaml", extra_check=extra_check)
    except SpecError as error:
        text = f"{draft.filename} gives a study that is not valid yet:\n{error}"
        raise SpecError(text) from None
    return made, draft.noted_lines()


def _of_file(source: str, format: str | None, program: str | None) -> tuple[Draft, str]:
    folder = None if is_url(source) else Path(source).parent
    draft = Draft(PurePosixPath(source).name, read_text(source), program, folder)
    return draft, _converted(draft, format)


def _of_python(source: str, format: str | None, program: str | None) -> tuple[Draft, str]:
    found, names, path = load_object(source)
    draft = Draft(path.name, "", program, path.parent)
    if ray_tuner.is_of_ray(found):
        ray_tuner.convert_object(found, names, path, draft)
        return draft, ray_tuner.TITLE
    draft.text = as_json(found)
    return draft, _converted(draft, format)


def _converted(draft: Draft, format: str | None) -> str:
    """Convert the text of a draft; return what it was."""
    chosen = FORMATS[_name_of(draft.text, format, draft.filename)]
    chosen.convert(section_of(draft.text, draft), draft)
    return chosen.TITLE


def _name_of(text: str, format: str | None, filename: str) -> str:
    known = ", ".join(FORMATS)
    if format is not None:
        if format not in FORMATS:
            hint = suggest(format, FORMATS) or f": one of {known}"
            raise SpecError(f"there is no format `{format}`{hint}")
        return format
    for name, one in FORMATS.items():
        if one.recognises(section_of(text, Draft(filename, text))):
            return name
    raise SpecError(
        f"{filename}: none of its keys tells what it is: name it by `--format`, one of {known}"
    )
