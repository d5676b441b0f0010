"""Announces promotions: to a command, a URL, or MLflow.

Each is announced at least once, with the champion's number as `id` and the number of the attempt,
which is above 1 if an earlier announcement may have arrived. Call this with the family's lock held.
"""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tunesvc.champions.mlflow_registry import register
from tunesvc.champions.promotion import export_champion
from tunesvc.champions.promotion_hooks import PromotionHooks, find_hooks
from tunesvc.db.champions import champion_records, promotion_deliveries
from tunesvc.db.champions.champion_records import Champion
from tunesvc.db.engine.database import Database
from tunesvc.errors import SpecError
from tunesvc.spec.sections.hook_address import is_url, resolve
from tunesvc.util.json_values import plain

COMMAND_S = 60.0
"""Longest time that a command may take."""
ANSWER_S = 10.0
"""Longest time until the status of a URL's answer is there."""
_TAIL_CHARS = 300


def deliver_due(
    database: Database,
    family: str,
    say: Callable[[str], None],
    hooks: PromotionHooks | None = None,
) -> int:
    """Make the deliveries of a family that are due, the oldest first.

    May be repeated: what was delivered is not delivered again. A delivery to a hook that the family
    has no more is cancelled.

    Args:
        database: of the family.
        family: its name.
        say: called with a sentence about each delivery.
        hooks: by default those that are kept with the family's study.

    Returns:
        The number of deliveries that failed.
    """
    with database.engine.connect() as connection:
        hooks = hooks or find_hooks(connection, family)
        due = promotion_deliveries.list_deliveries(connection, family, due=True)
        if not due:
            return 0
        if hooks is None:
            say(f"study {family!r} was deleted: the next `tune watch` knows the hooks to call")
            return len(due)
        history = champion_records.list_history(connection, family)
    of_id = {one.champion_id: one for one in history}
    failed = 0
    for delivery in due:
        champion = of_id[delivery.champion_id]
        address = hooks.addresses.get(delivery.hook)
        with database.engine.begin() as connection:
            if address is None:
                reason = f"the study has no `{delivery.hook}` any more"
                promotion_deliveries.cancel(connection, delivery, reason)
                continue
            attempt = promotion_deliveries.begin(connection, delivery)
        if attempt is None:
            continue
        if delivery.hook == "registry":
            error = register(champion)
        else:
            text = json.dumps(payload(champion, attempt), default=str, allow_nan=False)
            error = _call(address, hooks.folder, text)
        with database.engine.begin() as connection:
            promotion_deliveries.finish(connection, delivery, error)
        failed += bool(error)
        what = f"champion {champion.champion_id} of {family}: {delivery.hook}"
        say(f"{what} failed: {error}" if error else f"{what} delivered")
    return failed


def payload(champion: Champion, attempt: int) -> dict[str, Any]:
    """Return the JSON of a hook: as an export, in which NaN is text."""
    exported = {"id": champion.champion_id, "attempt": attempt, **export_champion(champion)}
    return {name: plain(value) for name, value in exported.items()}


def _call(address: str, folder: str, text: str) -> str:
    """Call `on_promote`; return the error, empty if there was none."""
    try:
        address = resolve(address, os.environ)
    except SpecError as error:
        return str(error)
    if is_url(address):
        return _post(address, text)
    return _run(address, Path(folder), text)


def _run(command: str, folder: Path, text: str) -> str:
    try:
        done = subprocess.run(
            shlex.split(command),
            input=text,
            cwd=folder,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=COMMAND_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"the command took longer than {COMMAND_S:g} s"
    except (OSError, ValueError) as error:
        return f"the command cannot be started: {error}"
    if not done.returncode:
        return ""
    output = " ".join((done.stderr or done.stdout).split())[-_TAIL_CHARS:]
    return f"the command ended with code {done.returncode}{f': {output}' if output else ''}"


def _post(url: str, text: str) -> str:
    """Post JSON; return the error, empty if there was none.

    In a thread of its own: the caller's may have an event loop, such as a notebook's.
    """
    with ThreadPoolExecutor(1, "hook") as thread:
        return thread.submit(asyncio.run, _post_in_time(url, text)).result()


async def _post_in_time(url: str, text: str) -> str:
    """Post JSON, and read the status of the answer alone.

    Limits of httpx are for each read, so that a slow answer could take any time.
    """
    import httpx

    headers = {"content-type": "application/json"}
    try:
        async with (
            asyncio.timeout(ANSWER_S),
            httpx.AsyncClient(timeout=ANSWER_S) as client,
            client.stream("POST", url, content=text, headers=headers) as answer,
        ):
            return "" if answer.is_success else f"the answer was {answer.status_code}"
    except TimeoutError:
        return f"no answer within {ANSWER_S:g} s"
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        return f"no answer: {type(error).__name__}"  # its text may quote the URL, with a password
