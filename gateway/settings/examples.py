"""What may stand where a configuration has something else: in words and examples, by key and by pattern."""

from __future__ import annotations

from ipaddress import ip_network

BLOCKS = {  # lists of blocks, by their keys
    "panels": '[{title: Shop, url: "http://127.0.0.1:8111/metrics", metrics: [shop_orders_total]}]',
    "routes": '[{match: "/**", upstream: shop}]',
    "steps": "[{name: high, off: [recommendations]}]",
    "tokens": "[{name: vera, token_sha256: ...}], as `tidegate token vera` makes it",
}
LISTS = BLOCKS | {
    "allow": '[10.0.0.0/8, "user:42"]',
    "deny": '[10.0.0.0/8, "user:42"]',
    "failures": "[500, 502, 503, 504]",
    "hosts": "[shop.example]",
    "limits": "[user]",
    "methods": "[GET, POST]",
    "metrics": "[shop_orders_total]",
    "off": "[recommendations]",
    "per": "[user, address]",
    "query": "[page, sort]",
    "servers": '["http://127.0.0.1:8100"]',
    "trusted_proxies": "[10.0.0.0/8]",
    "url": '["http://127.0.0.1:8111/metrics"]',
}
PATTERNS = {
    r"^[a-z][a-z0-9_-]{0,62}$": "is no name; use lower-case letters, digits, - and _, a letter first",
    r"^[a-z][a-z0-9_]{0,31}$": "is no parameter; use lower-case letters, digits and _, a letter first",
    r"^/[!-~]*$": "is no path; begin it with a /, without spaces: for example /readyz",
    r"^[A-Z]{1,20}$": "is no method; write it in upper case, for example POST",
    r"^(\*\.)?[a-z0-9.-]{1,253}$": "is no host; write for example shop.example or *.shop.example, no port",
    r"^[A-Za-z0-9_.-]{1,40}$": "is no prefix; use up to 40 letters, digits, _, . and -",
    r"^https?://[!-~]+$": "is no URL; write for example http://127.0.0.1:4318, without spaces",
    r"^[a-zA-Z_:][a-zA-Z0-9_:]*$": "is no metric; write its name alone, for example shop_orders_total",
    r"^[!-~ ]+$": "is no content type; write for example text/html; charset=utf-8, on one line",
    r"^[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}$": "is no cookie's name; write for example session",
    r"^[A-Za-z0-9-]{1,64}$": "is no header's name; use letters, digits and -, for example authorization",
    r"^[!-~]{1,64}$": "is no claim's name; use up to 64 characters, without spaces: for example tier",
}


def meant_network(given: object) -> str:
    """What may have been meant by one with bits behind its prefix; or examples."""
    text = given if isinstance(given, str) else ""
    try:
        return f"{ip_network(text, strict=False)}, or {text.partition('/')[0]} for that address alone"
    except ValueError:
        return "for example 10.0.0.0/8 or 2001:db8::/32"
