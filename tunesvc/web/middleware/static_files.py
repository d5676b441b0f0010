"""Static files. URLs contain the version, so browsers cache them; each file is compressed once."""

from __future__ import annotations

import gzip
from functools import cache
from pathlib import Path

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.responses import FileResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

_FOREVER = "public, max-age=31536000, immutable"
_TEXT = frozenset({".js", ".css", ".svg"})


class PackagedFiles(StaticFiles):
    """Folder of files whose content at a URL never changes."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        """Return a file, compressed if the browser accepts it."""
        response = await super().get_response(path, scope)
        response.headers["Cache-Control"] = _FOREVER
        accepts_gzip = "gzip" in Headers(scope=scope).get("accept-encoding", "")
        if not accepts_gzip or not isinstance(response, FileResponse):
            return response
        if Path(response.path).suffix not in _TEXT:
            return response
        body = await run_in_threadpool(_compressed, str(response.path))
        headers = {
            "Content-Encoding": "gzip",
            "Vary": "Accept-Encoding",
            "Cache-Control": _FOREVER,
        }
        return Response(body, media_type=response.media_type, headers=headers)


@cache
def _compressed(path: str) -> bytes:
    return gzip.compress(Path(path).read_bytes(), 6)
