"""Static files: their addresses bear their version, so browsers keep them; each is compressed once."""

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
    """A folder of files that never change at an address."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        """A file, compressed if the browser takes it so."""
        response = await super().get_response(path, scope)
        response.headers["Cache-Control"] = _FOREVER
        takes = "gzip" in Headers(scope=scope).get("accept-encoding", "")
        if not (takes and isinstance(response, FileResponse) and Path(response.path).suffix in _TEXT):
            return response
        body = await run_in_threadpool(_packed, str(response.path))
        headers = {
            "Content-Encoding": "gzip",
            "Vary": "Accept-Encoding",
            "Cache-Control": _FOREVER,
        }
        return Response(body, media_type=response.media_type, headers=headers)


@cache
def _packed(path: str) -> bytes:
    return gzip.compress(Path(path).read_bytes(), 6)
