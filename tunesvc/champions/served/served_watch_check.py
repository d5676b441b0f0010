"""Checks that servers can watch a study. Pure.

They run no commands, send to no trackers, and have a copy of the study's folder that never changes.
"""

from __future__ import annotations

from tunesvc.errors import SpecError
from tunesvc.spec.checks import why_not_watched
from tunesvc.spec.model import StudySpec
from tunesvc.spec.sections.data_keys import is_function
from tunesvc.spec.sections.hook_address import has_variable, is_url
from tunesvc.spec.sections.watch_keys import Watch
from tunesvc.util.paths import is_url as is_address


def require_served(spec: StudySpec) -> None:
    """Refuse a study that servers cannot watch.

    Raises:
        SpecError: the text has the remedy.
    """
    if text := why_not_watched(spec) or _why_not_served(spec):
        raise SpecError(f"servers cannot watch study {spec.name!r}: it {text}")


def _why_not_served(spec: StudySpec) -> str:
    source = None if spec.data is None else spec.data.source
    if isinstance(source, str) and _is_in_folder(source):
        return (
            f"reads `data: source: {source}` from its folder, whose copy on servers never changes: "
            "name an absolute path that workers reach, an address such as s3://bucket/rows.parquet,"
            " or a function, `module:function`"
        )
    options = spec.watch or Watch()
    if options.registry is not None:
        return (
            "has `registry: mlflow`, and servers send to no trackers: leave it out, or let "
            "`tune watch` run where the tracker's address is known"
        )
    hook = options.on_promote
    if hook is None:
        return ""
    if not is_url(hook):
        return (
            "has a command as `on_promote`, and servers run no commands: name a URL, or let "
            "`tune alert add ADDRESS --on promoted` deliver promotions"
        )
    if has_variable(hook):
        return (
            "has a variable in `on_promote`, which would be one of the server's environment: let "
            "`tune alert add ADDRESS --on promoted` deliver promotions to an address with a secret"
        )
    return ""


def _is_in_folder(source: str) -> bool:
    """Return True for a relative path: no function, address or absolute path."""
    return not (is_address(source) or is_function(source) or source.startswith(("/", "~")))
