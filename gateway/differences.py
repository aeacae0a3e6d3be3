"""What one configuration has otherwise than another, key by key, without secrets."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Any

import yaml
from typing_extensions import TypedDict  # pydantic reads no other before Python 3.12

from gateway.config import Config

MOST = 500  # differences that are listed; more is another file
HIDDEN = "***"
NEEDS_RESTART = (
    *("listen.host", "listen.port", "listen.workers"),
    *("admin.host", "admin.port", "admin.state_file"),
)
_SECRET = frozenset({"token_sha256"})  # keys that are nobody's business
_CREDENTIALS = re.compile(r"(?<=://)[^/?#\s]*@")  # of a URL, up to the authority's last @ (RFC 3986, 3.2)
_PARAMETER = re.compile(r"(?<=[?&])(\w*password=)([^&#\s'\"]+)", re.IGNORECASE)  # of a URL's query
_IDENTITY = ("name", "match", "title")  # of these one tells which item of a list an entry is


class Difference(TypedDict):
    """One key of the configuration that is not as it was; secrets are shown as ***."""

    path: str  # limits.user.rate
    before: Any  # None: it was not there
    after: Any
    restart: bool  # it holds after a restart only


def shown(config: Config) -> dict[str, Any]:
    """The settings as JSON has them, without secrets."""
    hidden: dict[str, Any] = _hide(_plain(config))
    return hidden


def differences(before: Config, after: Config) -> list[Difference]:
    """Every key in which they differ, in the order of the file."""
    found: list[Difference] = []
    for path, old, new in _walk("", _plain(before), _plain(after)):
        if len(found) == MOST:
            break
        key = path.rpartition(".")[2]
        restart = any(path == part or path.startswith(part + ".") for part in NEEDS_RESTART)
        found.append({"path": path, "before": _hide(old, key), "after": _hide(new, key), "restart": restart})
    return found


def in_words(found: list[Difference]) -> str:
    """One line for logs and the trail."""
    told = [
        f"{one['path']}: {_short(one['before'])} -> {_short(one['after'])}"
        + (" (after a restart)" if one["restart"] else "")
        for one in found[:5]
    ]
    more = len(found) - len(told)
    return "; ".join(told + ([f"and {more} more"] if more > 0 else [])) or "nothing"


def _short(value: Any) -> str:  # noqa: ANN401 - JSON
    text = "(none)" if value is None else value if isinstance(value, str) else _written(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _written(value: Any) -> str:  # noqa: ANN401 - JSON
    """As the file has it, on one line."""
    flow = yaml.safe_dump(value, default_flow_style=True, width=math.inf, allow_unicode=True, sort_keys=False)
    return flow.strip().removesuffix("...").strip()


def _plain(config: Config) -> dict[str, Any]:
    return config.model_dump(mode="json", by_alias=True)


def _walk(path: str, old: Any, new: Any) -> Iterator[tuple[str, Any, Any]]:  # noqa: ANN401 - JSON
    if old == new:
        return
    if isinstance(old, dict) and isinstance(new, dict):
        for key in [*old, *(key for key in new if key not in old)]:
            yield from _walk(f"{path}.{key}".lstrip("."), old.get(key), new.get(key))
        return
    if isinstance(old, list) and isinstance(new, list):
        ours, theirs = _named(old), _named(new)
        if ours is not None and theirs is not None:
            for name in [*ours, *(name for name in theirs if name not in ours)]:
                yield from _walk(f"{path}[{name}]", ours.get(name), theirs.get(name))
            both = [name for name in ours if name in theirs], [name for name in theirs if name in ours]
            if both[0] != both[1]:
                yield f"{path} (order)", *both
            return
    yield path, old, new


def _named(items: list[Any]) -> dict[str, Any] | None:
    """The items by what tells them apart; None when nothing does."""
    named: dict[str, Any] = {}
    for item in items:
        key = next((key for key in _IDENTITY if key in item), None) if isinstance(item, dict) else None
        if key is None:
            return None
        name = " ".join([str(item[key]), *map(str, [*item.get("methods", ()), *item.get("hosts", ())])])
        if name in named:
            return None
        named[name] = item
    return named


def _hide(value: Any, key: str = "") -> Any:  # noqa: ANN401 - JSON
    if value is not None and key in _SECRET:
        return HIDDEN
    if isinstance(value, dict):
        return {name: _hide(inner, name) for name, inner in value.items()}
    if isinstance(value, list):
        return [_hide(inner, key) for inner in value]
    return without_password(value) if isinstance(value, str) else value


def without_password(text: str) -> str:
    """The same, with *** for what stands before the host in URLs, and for passwords in their queries."""
    return _PARAMETER.sub(rf"\g<1>{HIDDEN}", _CREDENTIALS.sub(HIDDEN + "@", text))


def passwords(text: str) -> set[str]:
    """Those that stand in URLs in it, as they are spelt there."""
    found = {credentials[:-1].partition(":")[2] for credentials in _CREDENTIALS.findall(text)}
    return (found | {value for _, value in _PARAMETER.findall(text)}) - {""}
