"""The import rules of the architecture, held by walking every module's syntax tree."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
OURS = ("gateway", "shop_backend", "ops")


def imports(source: str, module: str, *, is_package: bool = False) -> Iterator[str]:
    """Every module that `source` imports, wherever in it, as absolute dotted names.

    `from a import b` yields both `a` and `a.b`, since b may be a module.
    """
    package = module if is_package else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = package.split(".")
                parent = ".".join(parts[: len(parts) - node.level + 1])
                base = f"{parent}.{base}".rstrip(".")
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


def within(name: str, *prefixes: str) -> bool:
    """Whether a dotted name is one of the prefixes or below one."""
    return any(name == prefix or name.startswith(prefix + ".") for prefix in prefixes)


@dataclass(frozen=True)
class Rule:
    """Modules below `who` (but not `unless`) import nothing below `never` (but `may`)."""

    says: str
    who: tuple[str, ...]
    never: tuple[str, ...]
    may: tuple[str, ...] = ()
    unless: tuple[str, ...] = ()

    def broken_by(self, module: str, name: str) -> bool:
        return (
            within(module, *self.who)
            and not within(module, *self.unless)
            and within(name, *self.never)
            # The bare package is named on the way to what may be imported.
            and not (within(name, *self.may) or any(may.startswith(name + ".") for may in self.may))
        )


# Plain vocabulary of the gateway: it knows nothing of requests, policies, stores or upstreams.
_WORDS = (
    *("gateway.errors", "gateway.config", "gateway.settings", "gateway.units", "gateway.pattern"),
    "gateway.redis_url",
)
# Leaves that know nothing of ours: addresses, header fields as lines, numbers, tallies, who drives a request.
_LEAVES = (
    "gateway.accept",
    "gateway.addresses",
    "gateway.busiest",
    "gateway.digits",
    "gateway.field",
    "gateway.fields",
    "gateway.generations",
    "gateway.tally",
    "gateway.tcp",
    "gateway.walk",
)
_EXCHANGE = ("gateway.exchange", "gateway.request_body", "gateway.error_page", "gateway.error_words")
_POLICY_MAY = (*_EXCHANGE, *_LEAVES, *_WORDS, "gateway.policies")
_FEATURES = tuple(
    f"shop_backend.{name}"
    for name in (
        *(
            "app",
            "cart",
            "catalog",
            "contact",
            "context",
            "delivery",
            "notifications",
            "orders",
            "payments",
            "profile",
        ),
        *("recommendations", "sessions"),
    )
)

RULES = (
    Rule("the gateway knows nothing of shops", ("gateway",), ("shop_backend", "ops")),
    Rule("the shop knows nothing of the gateway", ("shop_backend",), ("gateway", "ops")),
    Rule("ops starts processes and imports none of them", ("ops",), ("gateway", "shop_backend")),
    Rule("errors stand on nothing of ours", ("gateway.errors",), ("gateway",), ("gateway.errors",)),
    Rule(
        "config stands on errors",
        (
            *("gateway.config", "gateway.settings", "gateway.units", "gateway.pattern"),
            *("gateway.yaml_source", "gateway.yaml_words"),
        ),
        ("gateway",),
        (*_WORDS, "gateway.yaml_source", "gateway.yaml_words"),
    ),
    Rule("routes stand on config", ("gateway.routes",), ("gateway",), (*_WORDS, "gateway.routes")),
    Rule("fields, walks and TCP stand on nothing of ours", _LEAVES, ("gateway",), _LEAVES),
    Rule("an exchange stands on errors", _EXCHANGE, ("gateway",), ("gateway.errors", *_LEAVES, *_EXCHANGE)),
    Rule("policies know exchange, errors, config", ("gateway.policies",), ("gateway",), _POLICY_MAY),
    Rule("policies never touch a store", ("gateway.policies",), ("redis", "httpx", "httptools", "starlette")),
    Rule(
        "state knows exchange, errors, config",
        ("gateway.state",),
        ("gateway",),
        ("gateway.exchange", *_WORDS, "gateway.state"),
    ),
    Rule(
        "upstream knows exchange, errors, config",
        ("gateway.upstream",),
        ("gateway",),
        (*_EXCHANGE, *_LEAVES, *_WORDS, "gateway.upstream"),
    ),
    Rule(
        "stock and storage know their settings, errors, the deadline and batches",
        ("shop_backend.stock", "shop_backend.storage"),
        ("shop_backend",),
        (
            *("shop_backend.batcher", "shop_backend.deadline", "shop_backend.errors"),
            *("shop_backend.sections", "shop_backend.stock", "shop_backend.storage"),
        ),
    ),
    Rule(
        "the deadline stands on errors, and is counted",
        ("shop_backend.deadline",),
        ("shop_backend",),
        ("shop_backend.deadline", "shop_backend.errors", "shop_backend.metrics"),
    ),
    Rule(
        "features never import pages or workers",
        _FEATURES,
        ("shop_backend.pages", "shop_backend.workers"),
        unless=("shop_backend.app",),
    ),
    Rule(
        "the sandbox is a company of its own",
        ("shop_backend.sandbox",),
        (*_FEATURES, "shop_backend.stock", "shop_backend.storage", "shop_backend.workers"),
    ),
)


def violations(rule: Rule, module: str, source: str, *, is_package: bool = False) -> list[str]:
    """What in a module breaks a rule, one line each."""
    found = dict.fromkeys(imports(source, module, is_package=is_package))
    return [f"{module} imports {name}: {rule.says}" for name in found if rule.broken_by(module, name)]


def _modules() -> Iterator[tuple[str, str, bool]]:
    for package in OURS:
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            is_package = parts[-1] == "__init__"
            name = ".".join(parts[:-1] if is_package else parts)
            yield name, path.read_text(encoding="utf-8"), is_package


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.says)
def test_imports_keep_to_the_rules(rule: Rule) -> None:
    """No module of ours imports what the architecture forbids it."""
    broken = [
        line
        for module, source, is_package in _modules()
        for line in violations(rule, module, source, is_package=is_package)
    ]

    assert not broken, "\n".join(broken)


def oldest_of_a_dict(source: str) -> list[int]:
    """Lines that take away the first key of a plain dict: it walks over all that were taken before.

    Taking one by one is quadratic; `OrderedDict.popitem(last=False)` is not.
    """
    first = re.compile(
        r"del (?P<d>.+)\[next\(iter\((?P=d)\)\)\]|(?P<o>.+)\.pop\(next\(iter\((?P=o)\)\)(, .*)?\)"
    )
    return [
        node.lineno
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Delete | ast.Call) and first.fullmatch(ast.unparse(node))
    ]


def test_the_oldest_is_found_at_once() -> None:
    """What is kept in the order of its age is forgotten at the same price however much there is."""
    slow = [f"{name}:{line}" for name, source, _ in _modules() for line in oldest_of_a_dict(source)]
    assert not slow, f"OrderedDict.popitem(last=False) finds the oldest at once: {slow}"


@pytest.mark.parametrize(
    "source", ["del self.x[next(iter(self.x))]", "def f(d):\n    d.pop(next(iter(d)), None)"]
)
def test_a_slow_search_for_the_oldest_is_caught(source: str) -> None:
    """Both ways to write it."""
    assert oldest_of_a_dict(source)
    assert not oldest_of_a_dict("d.popitem(last=False); del a[next(iter(b))]")


@pytest.mark.parametrize(
    ("module", "source", "says"),
    [
        ("gateway.app", "import shop_backend.orders", "the gateway knows nothing of shops"),
        ("shop_backend.app", "from gateway import errors", "the shop knows nothing of the gateway"),
        ("ops.cli", "def f():\n    import gateway.app", "ops starts processes and imports none of them"),
        ("gateway.errors", "from gateway import exchange", "errors stand on nothing of ours"),
        ("gateway.config", "from gateway.routes import Table", "config stands on errors"),
        ("gateway.exchange", "from gateway.config import load", "an exchange stands on errors"),
        (
            "gateway.policies.cache",
            "from gateway.state import limits",
            "policies know exchange, errors, config",
        ),
        (
            "gateway.policies.cache",
            "from ..upstream.pool import Pool",
            "policies know exchange, errors, config",
        ),
        ("gateway.policies.cache", "import redis.asyncio as r", "policies never touch a store"),
        (
            "gateway.state.limits",
            "from gateway.policies import rate_limit",
            "state knows exchange, errors, config",
        ),
        (
            "gateway.upstream.pool",
            "from gateway.state.pins import Pins",
            "upstream knows exchange, errors, config",
        ),
        (
            "shop_backend.stock.ledger",
            "from shop_backend import orders",
            "stock and storage know their settings, errors, the deadline and batches",
        ),
        (
            "shop_backend.orders",
            "from shop_backend.workers.runner import run",
            "features never import pages or workers",
        ),
        ("shop_backend.sandbox.app", "import shop_backend.storage", "the sandbox is a company of its own"),
    ],
)
def test_a_violating_source_is_caught(module: str, source: str, says: str) -> None:
    """The walk itself works: each kind of import, also relative ones and those inside functions."""
    rule = next(rule for rule in RULES if rule.says == says)

    assert violations(rule, module, source)


@pytest.mark.parametrize(
    ("module", "source"),
    [
        (
            "gateway.policies.breaker",
            "from gateway.exchange import Exchange, Reply\nfrom gateway import errors",
        ),
        ("gateway.state.limits", "import redis.asyncio\nfrom gateway.state import scripts"),
        ("shop_backend.workers.orders", "from shop_backend import delivery"),
        ("gateway_tools.x", "import shop_backend"),
    ],
)
def test_what_is_allowed_passes(module: str, source: str) -> None:
    """No false alarm, also where a name only begins like a forbidden one."""
    assert not [line for rule in RULES for line in violations(rule, module, source)]
