"""`tune best --test` and `tune apply` on a server, which runs what a submitted study needs."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from tunesvc.cli.chosen_client import opened_client
from tunesvc.cli.exits import ExitCode
from tunesvc.cli.final_output import no_model, print_model, print_test
from tunesvc.cli.following import watch
from tunesvc.errors import Forbidden, StudyFailed, TuneError
from tunesvc.util.formatting import final_command, no_result_message

if TYPE_CHECKING:
    from tunesvc.client.answers import RequestedFinal
    from tunesvc.client.interface import TuneClient
    from tunesvc.models.model_store import StoredModel
    from tunesvc.queries.operations.final_runs import Kind

_POLL_S = 0.5


def test_and_print(study: str, server: str, *, again: bool, as_json: bool, quiet: bool) -> None:
    """Have a server evaluate a study on its test part unless that was done, and print it."""
    with opened_client(None, server) as client:
        before = client.insights.test_result(study)
        final = _test(client, study, again=again, is_recorded=before is not None)
        if final is not None:
            _follow(client, study, "test", final, quiet=quiet or as_json)
        result = client.insights.test_result(study)
        if result is None:
            raise TuneError(f"the result of {study!r} on the test part was deleted meanwhile")
        recommendation = client.insights.best(study).recommendation
    recommended = result.trial if recommendation is None else recommendation.number
    is_new = before is None or before.at != result.at
    print_test(result, recommended, is_new=is_new, as_json=as_json)


def _test(
    client: TuneClient, study: str, *, again: bool, is_recorded: bool
) -> RequestedFinal | None:
    """Have a study evaluated unless that was done; return the final run.

    Raises:
        Forbidden: the user may not have it evaluated, and there is no result to show.
    """
    try:
        return client.submissions.test(study, again=again)
    except Forbidden:
        if again or not is_recorded:
            raise
        return None


def apply_and_print(
    study: str,
    server: str,
    *,
    train: bool,
    trial: int | None,
    out: Path | None,
    replace: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Have a server train a study's final model, or look for the stored one, and print it.

    Raises:
        TuneError: there is something at `out`, or the model could not be trained or stored.
    """
    from tunesvc.runtime.finals.model_export import require_empty

    if out is not None:
        require_empty(out)
    with opened_client(None, server) as client:
        if train:
            final = client.submissions.apply(study, trial, replace=replace)
            _follow(client, study, "apply", final, quiet=quiet or as_json)
            found = _await_model(client, study, final)
        else:
            stored = client.insights.model(study)
            if stored is None:
                raise no_model(study)
            found = stored
        if out is not None:
            shutil.copytree(client.insights.fetch_model(study), out, dirs_exist_ok=True)
        metadata = found.metadata
        uses = client.insights.test_uses(study) if metadata.test is not None else ()
    print_model(metadata, server, out, uses, as_json=as_json)


def _follow(
    client: TuneClient, study: str, kind: Kind, final: RequestedFinal, *, quiet: bool
) -> None:
    """Show a final run until it has ended.

    Raises:
        StudyFailed: it failed.
        TuneError: it has ended without a result.
        typer.Exit: Ctrl-C was pressed.
    """
    part = "test part" if kind == "test" else "final model"
    title = f"{study} · {part}"
    name = final.study.name
    followed = watch(client, [final.study], {}, as_json=False, quiet=quiet, title=title)[name]
    if followed.interrupted:
        _end_interrupted(study, kind)
    if client.trials.get(name, final.trial).row.state == "complete":
        return
    failure: StudyFailed | None = followed.failure
    if failure is not None:
        raise failure
    raise TuneError(no_result_message(study, name, kind, followed.view.reason))


def _await_model(client: TuneClient, study: str, final: RequestedFinal) -> StoredModel:
    """Return the model of a training that has ended, once a server has stored it.

    Raises:
        TuneError: it could not be stored.
        typer.Exit: Ctrl-C was pressed.
    """
    try:
        while True:
            found = client.insights.model(study, final.trial)
            if found is not None:
                return found
            time.sleep(_POLL_S)
    except KeyboardInterrupt:
        _end_interrupted(study, "apply")
        raise


def _end_interrupted(study: str, kind: Kind) -> None:
    shown = final_command(study, kind).removesuffix(" --train")
    what = "result" if kind == "test" else "model"
    typer.echo(f"the {what} will be on the server: `{shown}` shows it then", err=True)
    raise typer.Exit(ExitCode.INTERRUPTED)
