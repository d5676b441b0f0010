"""Output of `tune best --test` and `tune apply`, the same on this machine and on a server."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from tunesvc.models.model_store import ModelMetadata
    from tunesvc.queries.operations.final_results import TestResult, TestUse


def print_test(result: TestResult, recommended: int, *, is_new: bool, as_json: bool) -> None:
    """Print a result on the test part, and the next command.

    Args:
        result: the newest one.
        recommended: number of the trial that is recommended now.
        is_new: True if it was evaluated just now.
        as_json: print JSON.
    """
    from tunesvc.views import final_text, terminal

    if as_json:
        terminal.print_json(_test_json(result, recommended, is_new=is_new))
        return
    terminal.out().print(final_text.test_result(result, recommended, is_new=is_new))
    if recommended == result.trial:
        terminal.out().print(final_text.next_stages(result.study))


def print_model(
    metadata: ModelMetadata,
    store: str,
    out: Path | None,
    uses: tuple[TestUse, ...],
    *,
    as_json: bool,
) -> None:
    """Print what a stored model is.

    Args:
        metadata: what it is.
        store: address of the artifact store, or of the server.
        out: folder with a copy.
        uses: those of the test part.
        as_json: print JSON.
    """
    from tunesvc.views import final_text, terminal

    if as_json:
        folder = None if out is None else str(out)
        terminal.print_json({**asdict(metadata), "store": store, "folder": folder})
        return
    terminal.out().print(final_text.trained_model(metadata, store, out, uses))


def no_model(study: str) -> typer.BadParameter:
    """Return the error of a study without a model."""
    return typer.BadParameter(
        f"study {study!r} has no trained model yet: add --train, which trains one"
    )


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
