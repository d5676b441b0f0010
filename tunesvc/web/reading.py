"""Wrapper of every route: an unavailable database becomes an error of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator

from fastapi import Request

from tunesvc.db.engine.database_errors import translate_unavailable


async def reading(request: Request) -> AsyncIterator[None]:
    """Translate errors of an unavailable database.

    Takes the position of the changes before anything is read: the page requests later changes.
    """
    request.state.position = request.app.state.hub.position
    with translate_unavailable():
        yield
