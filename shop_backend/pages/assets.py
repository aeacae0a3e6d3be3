"""Static files under names that carry their content's hash, so that browsers keep them for good."""

from __future__ import annotations

import hashlib
import mimetypes
from collections.abc import Iterable
from pathlib import Path

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

IMMUTABLE = "public, max-age=31536000, immutable"
TYPES = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}


class Assets:
    """Every file of some folders, read once at start and served from memory as `/static/NAME.HASH.EXT`.

    Args:
        files: what to serve; later files of the same name win.

    Raises:
        OSError: a file can't be read.
    """

    def __init__(self, files: Iterable[Path]) -> None:
        self._urls: dict[str, str] = {}
        self._bodies: dict[str, tuple[bytes, str]] = {}
        for path in files:
            body = path.read_bytes()
            digest = hashlib.sha256(body).hexdigest()[:12]
            hashed = f"{path.stem}.{digest}{path.suffix}"
            media = TYPES.get(path.suffix) or mimetypes.guess_type(path.name)[0] or "application/octet-stream"
            self._urls[path.name] = f"/static/{hashed}"
            self._bodies[hashed] = (body, media)

    def url(self, name: str) -> str:
        """Where the file `name` is served now.

        Raises:
            KeyError: there is no such file.
        """
        return self._urls[name]

    def has(self, name: str) -> bool:
        """Whether there is a file of this name."""
        return name in self._urls

    async def serve(self, request: Request) -> Response:
        """Answer `/static/{file}`: 200 for the name of now, 404 for every other."""
        found = self._bodies.get(request.path_params["file"])
        if found is None:
            # Never cached: with several versions running, the next try may find it.
            return PlainTextResponse("No such file.\n", 404, headers={"cache-control": "no-store"})
        body, media = found
        headers = {"cache-control": IMMUTABLE, "x-content-type-options": "nosniff"}
        if media == TYPES[".svg"]:
            # An SVG opened by itself is a document; it gets to run nothing.
            headers["content-security-policy"] = "default-src 'none'; style-src 'unsafe-inline'"
        return Response(body, media_type=None, headers={**headers, "content-type": media})


def folder(path: Path) -> list[Path]:
    """The files of one folder, sorted by name."""
    return sorted(entry for entry in path.iterdir() if entry.is_file())
