"""What `tune best --test` and `tune apply --train` have in common: run, and print the result."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from tunesvc.cli.exits import ExitCode
from tunesvc.cli.session import run_session

if TYPE_CHECKING:
    from tunesvc.models.model_store import ModelMetadata
    from tunesvc.queries.operations.final_runs import TestResult
    from tunesvc.study import Study


def test_and_print(
    study: str,
    database_url: str | None,
    *,
    again: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Evaluate a study's recommended trial on the test part unless that was done, and print it."""
    from tunesvc import api
    from tunesvc.views import final_text, terminal

    loaded = api.load_study(study, database_url=database_url)
    before = loaded.test_result
    result, _ = run_session(
        {study: f"{study} · test part"},
        lambda observers, interrupt: loaded.test(
            again=again,
            observer=observers.each[study],
            interrupt=interrupt,
        ),
        as_json=False,
        quiet=quiet or as_json,
    )
    if result is None:
        _end_interrupted(f"tune best {study} --test")
        return
    recommended = loaded.best_trial.number
    is_new = before is None or before.at != result.at
    if as_json:
        terminal.print_json(_test_json(result, recommended, is_new=is_new))
        return
    terminal.out().print(final_text.test_result(result, recommended, is_new=is_new))
    if recommended == result.trial:
        terminal.out().print(final_text.next_stages(study))


def apply_and_print(
    study: str,
    database_url: str | None,
    *,
    trial: int | None,
    out: Path | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Train a study's final model, store it, and print what it is."""
    from tunesvc import api

    loaded = api.load_study(study, database_url=database_url)
    model, _ = run_session(
        {study: f"{study} · final model"},
        lambda observers, interrupt: loaded.apply(
            trial,
            out=out,
            observer=observers.each[study],
            interrupt=interrupt,
        ),
        as_json=False,
        quiet=quiet or as_json,
    )
    if model is None:
        _end_interrupted(f"tune apply {study} --train")
        return
    print_model(loaded, model.metadata, out, as_json=as_json)


def print_model(
    study: Study,
    metadata: ModelMetadata,
    out: Path | None,
    *,
    as_json: bool,
) -> None:
    """Print what a stored model is."""
    from tunesvc.models.model_store import ModelStore
    from tunesvc.views import final_text, terminal

    store = ModelStore.open().address
    if as_json:
        folder = None if out is None else str(out)
        terminal.print_json({**asdict(metadata), "store": store, "folder": folder})
        return
    uses = study.test_uses if metadata.test is not None else ()
    terminal.out().print(final_text.trained_model(metadata, store, out, uses))


def _test_json(result: TestResult, recommended: int, *, is_new: bool) -> dict[str, Any]:
    from tunesvc.views import terminal

    return {
        **terminal.plain(result),
        "optimism": result.optimism,
        "interval": result.interval,
        "is_clean": result.is_clean,
        "verdict": result.verdict,
        "caution": result.caution,
        "is_new": is_new,
        "recommended": recommended,
    }


def _end_interrupted(command: str) -> None:
    typer.echo(f"interrupted before the result; `{command}` continues", err=True)
    raise typer.Exit(ExitCode.INTERRUPTED)
