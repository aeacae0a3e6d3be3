"""Static files under names that carry their content's hash, so that browsers keep them for good.

They are compressed once, when they are read: no request costs that, and each carries as little as it can.
"""

from __future__ import annotations

import gzip
import hashlib
import mimetypes
import re
from collections.abc import Iterable
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response

from shop_backend.errors import NotFound, problem

IMMUTABLE = "public, max-age=31536000, immutable"
# Whoever asks again and again asks the gate, not us. But for a moment only, and not while we are away:
# another instance, of the next version, may have it.
MISSING = "public, max-age=2, stale-if-error=0"
TYPES = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_WORTH = 0.9  # of a file's size: what compresses less is sent as it is
_WEIGHT = re.compile(r"q=(0(?:\.\d{0,3})?|1(?:\.0{0,3})?)", re.IGNORECASE)
_IMPORT = re.compile(rb'(?<=from "\./)[a-z_]+\.js(?=")')


class Assets:
    """Some files, read once at start and served from memory as `/static/NAME.HASH.EXT`.

    Modules import each other as `from "./name.js"`; they are served with the hashed names in place.

    Args:
        files: what to serve; later files of the same name win.

    Raises:
        OSError: a file can't be read.
        ValueError: a module imports itself, or one that is not among the files.
    """

    def __init__(self, files: Iterable[Path]) -> None:
        self._urls: dict[str, str] = {}
        self._bodies: dict[str, tuple[bytes, str, bytes | None]] = {}  # plain, media type, in gzip
        paths = {path.name: path for path in files}
        for name in paths:
            self._add(name, paths, importing=())

    def _add(self, name: str, paths: dict[str, Path], importing: tuple[str, ...]) -> None:
        if name in self._urls:
            return
        if name in importing or name not in paths:
            raise ValueError(f"{' → '.join((*importing, name))}: imported in a circle, or missing")
        path = paths[name]
        body = path.read_bytes()
        if path.suffix == ".js":
            for module in {found.decode() for found in _IMPORT.findall(body)}:
                self._add(module, paths, (*importing, name))
            body = _IMPORT.sub(lambda found: self._hashed(found[0].decode()).encode(), body)
        digest = hashlib.sha256(body).hexdigest()[:12]
        self._urls[name] = f"/static/{path.stem}.{digest}{path.suffix}"
        media = TYPES.get(path.suffix) or mimetypes.guess_type(name)[0] or "application/octet-stream"
        packed = gzip.compress(body, 9, mtime=0)
        self._bodies[self._hashed(name)] = (
            body,
            media,
            packed if len(packed) < _WORTH * len(body) else None,
        )

    def _hashed(self, name: str) -> str:
        return self._urls[name].removeprefix("/static/")

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
        """Answer `/static/{file}` under the name of now; every other name is 404, the same for everyone."""
        found = self._bodies.get(request.path_params["file"])
        if found is None:
            return problem(NotFound("no such file"), headers={"cache-control": MISSING})
        body, media, packed = found
        headers = {
            "content-type": media,
            "cache-control": IMMUTABLE,
            "x-content-type-options": "nosniff",
            # An SVG opened by itself is a document; it gets to run nothing.
            "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'",
        }
        if packed is not None:
            headers["vary"] = "accept-encoding"
            if takes_gzip(",".join(request.headers.getlist("accept-encoding"))):
                headers["content-encoding"] = "gzip"
                body = packed
        return Response(body, headers=headers)


def takes_gzip(accept: str) -> bool:
    """Whether gzip is welcome, by Accept-Encoding (RFC 9110, 12.5.3); without the header it is not."""
    weights: dict[str, float] = {}
    for part in accept.split(","):
        name, _, parameter = part.partition(";")
        match = _WEIGHT.fullmatch(parameter.replace(" ", "")) if parameter.strip() else None
        weights[name.strip().lower()] = float(match[1]) if match else 0.0 if parameter.strip() else 1.0
    weight = weights.get("gzip", weights.get("x-gzip", weights.get("*", 0.0)))
    return weight > 0


def folder(path: Path) -> list[Path]:
    """The files of one folder, sorted by name."""
    return sorted(entry for entry in path.iterdir() if entry.is_file())
