"""One operation of the admin API: what the routes are made of, and the OpenAPI document too."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from gateway.admin.auth import Principal

F = TypeVar("F")
Answer = Any  # a document, or a whole response


@dataclass(frozen=True, slots=True)
class Call(Generic[F]):
    """A request whose sender and form are known.

    Attributes:
        request: as it came.
        by: who sent it.
        form: its body; None where there is none.
    """

    request: Request
    by: Principal
    form: F

    @property
    def name(self) -> str:
        """What the path names."""
        return str(next(iter(self.request.path_params.values())))


Handler = Callable[[Call[Any]], Awaitable[Answer]]


@dataclass(frozen=True, slots=True)
class Operation:
    """One method of one path.

    Attributes:
        method: of HTTP.
        path: with {parameters}.
        handler: does it.
        says: what it does, in a few words.
        answer: the document that it answers with; None when that is no JSON.
        needs: "nobody" for who needs no token, else the least role.
        form: what the body holds.
        kind: of what it changes, for the trail; empty when it changes nothing.
        status: of success.
        media: type of the answer.
        refuses: what else it may answer, besides what follows from the above.
        also: other statuses of the same document.
    """

    method: Literal["GET", "PUT", "POST", "DELETE"]
    path: str
    handler: Handler
    says: str
    answer: Any = None
    needs: Literal["nobody", "viewer", "operator"] = "viewer"
    form: type[BaseModel] | Literal["text"] | None = None
    kind: str = ""
    status: int = 200
    media: str = "application/json"
    refuses: tuple[int, ...] = ()
    also: tuple[int, ...] = ()

    @property
    def id(self) -> str:
        """For the OpenAPI document: put_features_name."""
        words = re.findall(r"\w+", self.path.removeprefix("/api").replace("-", "_"))
        return "_".join([self.method.lower(), *words])


def respond(operation: Operation, answer: Answer) -> Response | Any:  # noqa: ANN401 - whole responses vary
    """The answer as Starlette sends it."""
    if isinstance(answer, dict):
        return JSONResponse(answer, operation.status, headers={"cache-control": "no-store"})
    return answer
