"""Writes docs/configure.md and the schemas for editors from the settings' own models.

    python docs/generate.py            # write what is not current
    python docs/generate.py --check    # say what is not current, exit status 1

Meanings stand beside the keys in gateway/settings/ and shop_backend/{config,sections}.py.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
Json = dict[str, Any]
UNITS = ((86400, "d"), (3600, "h"), (60, "m"), (1, "s"))  # of durations, in seconds
SIZES = ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"))

HEAD = """\
# Every setting

<!-- Written by docs/generate.py from gateway/settings/ and shop_backend/{config,sections}.py; edit those. -->

Two files: [config/gateway.yaml](../config/gateway.yaml) for the gateway and [config/shop.yaml](../config/shop.yaml)
for the shop. Neither has to say more than what differs from the defaults below; the smallest whole gateway
file stands in the [README](../README.md#before-your-own-backend).

- **Durations** are written `500ms`, `5s`, `10m`, `2h` or `1d`; a bare number is seconds. **Sizes** are written `64KiB`,
  `1MiB` or `10MB`; a bare number is bytes. **Rates** are written `20/second` or `5/10 seconds`.
- `${NAME}` and `${NAME:-default}` are filled from the environment, in any value of the gateway's file; inside `{...}` or
  `[...]` they take quotes: `{rate: "${RATE:-20/second}"}`. Where a block's main key comes out empty (`redis.url`,
  `identity.jwt.key_file`), the block counts as left out.
- An edit of the gateway's file holds in every worker within two seconds, but for `listen.host`, `listen.port`,
  `listen.workers`, `admin.host`, `admin.port` and `admin.state_file`, which take a restart. So does an edit of a file
  that it names for tokens or fallbacks: a key taken out verifies nothing any more. A mistake changes nothing:
  `tidegate check FILE` names each with its line. The shop reads its file when a process starts.
- **Editors** complete and check both files by their JSON Schema, [config/gateway.schema.json](../config/gateway.schema.json)
  and [config/shop.schema.json](../config/shop.schema.json): the first line of each file says so to everything that
  speaks the YAML language server's protocol. `python -m gateway schema` prints it for a file of your own.

Secrets stand in neither file. From the environment come:

| variable | what |
|---|---|
| `TIDEGATE_ADMIN_TOKEN` | an operator's token of the admin API; or `admin.token_file`, or hashes in `admin.tokens` |
| `TIDEGATE_REDIS_URL` | the volatile Redis; in config/gateway.yaml as `redis.url` |
| `TIDEGATE_SHOP_SERVER` | the shop's address, in config/gateway.yaml as the upstream's only server |
| `TIDEGATE_SHOP_METRICS`, `TIDEGATE_WORKER_METRICS` | the shop's and its worker's pages of metrics, whose numbers the console shows (`admin.panels`) |
| `TIDEGATE_SHOP_CONFIG` | the shop's file, when it is not config/shop.yaml |
"""


# ---- the schemas -------------------------------------------------------------------------------


def schema_of(package: str) -> Json:
    """The JSON Schema that a package prints of its settings."""
    done = subprocess.run(
        [sys.executable, "-m", package, "schema"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return dict(json.loads(done.stdout))


def block_of(value: Json) -> tuple[str, str] | None:
    """The block that a key holds, and how it is reached from the key; None for a plain value."""
    for choice in (value, *value.get("anyOf", ())):
        named = [choice.get("additionalProperties"), *choice.get("patternProperties", {}).values()]
        for inside, reached in (
            (choice, ""),
            *((each, ".NAME") for each in named),
            (choice.get("items"), "[]"),
        ):
            if isinstance(inside, dict) and "$ref" in inside:
                return inside["$ref"].rpartition("/")[2], reached
    return None


# ---- as prose ----------------------------------------------------------------------------------


def sections(schema: Json) -> Iterator[str]:
    """The file's own keys, then a section for each block, in the order of the file."""
    yield from _section("", schema, schema["$defs"])


def _section(path: str, block: Json, blocks: Json) -> Iterator[str]:
    if path:
        yield f"### `{path}`\n"
    if path and block.get("description"):
        yield f"{_line(block['description'])}\n"
    yield "| key | default | meaning |\n|---|---|---|"
    required = block.get("required", ())
    inner = []
    for name, value in block["properties"].items():
        reached = block_of(value)
        if reached is not None:
            inner.append((f"{path}.{name}{reached[1]}".lstrip("."), blocks[reached[0]]))
        default = "needed" if name in required else _default(value, inner=reached is not None)
        yield f"| `{name}` | {default} | {_meaning(value)} |"
    yield ""
    for where, content in inner:
        yield from _section(where, content, blocks)


def _line(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _default(value: Json, *, inner: bool) -> str:
    given = value.get("default")
    if inner and given:
        return "as below"
    if given is None:
        return "none"
    if given in ([], {}):
        return "none"
    if isinstance(given, bool):
        return f"`{str(given).lower()}`"
    if value.get("x-kind") == "duration":
        return f"`{_with_unit(given, UNITS) or f'{given * 1000:g}ms'}`"
    if value.get("x-kind") == "size":
        return f"`{_with_unit(given, SIZES) or given}`"
    return f"`{given:g}`" if isinstance(given, float) else f"`{given}`"


def _with_unit(number: float, units: tuple[tuple[int, str], ...]) -> str:
    for size, unit in units:
        if number >= size and number % size == 0:
            return f"{number / size:g}{unit}"
    return "0s" if number == 0 and units is UNITS else ""


def _meaning(value: Json) -> str:
    said = [_line(value.get("description", ""))]
    choices = [each for choice in (value, *value.get("anyOf", ())) for each in choice.get("enum", ())]
    if choices:
        said.append(f"One of {', '.join(f'`{choice}`' for choice in choices)}.")
    bounds = next((text for choice in (value, *value.get("anyOf", ())) if (text := _bounds(choice))), "")
    if bounds:
        said.append(f"({bounds})")
    if "x-variable" in value:
        said.append(f"Also `{value['x-variable']}`.")
    return " ".join(filter(None, said))


def _bounds(choice: Json) -> str:
    if choice.get("type") not in {"integer", "number"} or "x-kind" in choice:
        return ""
    low = f"above {choice['exclusiveMinimum']:g}" if "exclusiveMinimum" in choice else ""
    low = low or (f"from {choice['minimum']:g}" if "minimum" in choice else "")
    high = f"below {choice['exclusiveMaximum']:g}" if "exclusiveMaximum" in choice else ""
    high = high or (f"to {choice['maximum']:g}" if "maximum" in choice else "")
    return f"{low} {high}".strip()


# ---- the files ---------------------------------------------------------------------------------


def files() -> dict[Path, str]:
    """What every file should hold."""
    gateway, shop = schema_of("gateway"), schema_of("shop_backend")
    text = [HEAD, "## The gateway's file\n", *sections(gateway), "## The shop's file\n", *sections(shop)]
    return {
        ROOT / "docs/configure.md": "\n".join(text).rstrip() + "\n",
        ROOT / "config/gateway.schema.json": json.dumps(gateway, indent=1) + "\n",
        ROOT / "config/shop.schema.json": json.dumps(shop, indent=1) + "\n",
    }


def main(words: list[str]) -> int:
    """Write what is not current, or name it; the exit status."""
    stale = []
    for file, content in files().items():
        if not file.exists() or file.read_text(encoding="utf-8") != content:
            stale.append(str(file.relative_to(ROOT)))
            if "--check" not in words:
                file.write_text(content, encoding="utf-8")
    if stale and "--check" in words:
        sys.stderr.write(f"{', '.join(stale)}: not current; run scripts/lint --fix\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
