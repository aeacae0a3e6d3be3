"""Writes the dashboards: `python config/grafana/generate.py`; `--check` only says whether they are current.

Edit here, not in the JSON and not in Grafana. tests/e2e/test_dashboards.py asks a live Prometheus every
query that stands here.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from gateway_board import GATEWAY
from panels import Panel
from sale_night_board import SALE_NIGHT
from shop_board import SHOP

DASHBOARDS = Path(__file__).parent / "dashboards"
WIDTH = 24  # columns of Grafana's grid
SOURCE = {"type": "prometheus", "uid": "prometheus"}  # as provisioning/datasources names it
Json = dict[str, Any]


def _draw(panel: Panel) -> Json:
    """Grafana's options for a kind of panel."""
    if panel.kind == "stat":
        calc = {"calcs": ["lastNotNull"], "fields": "", "values": False}
        return {"reduceOptions": calc, "colorMode": "background", "graphMode": "area", "textMode": "value"}
    if panel.kind == "state-timeline":
        return {
            "mergeValues": True,
            "showValue": "auto",
            "rowHeight": 0.8,
            "legend": {"displayMode": "list", "placement": "bottom", "showLegend": False},
        }
    return {
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
        "tooltip": {"mode": "multi", "sort": "desc"},
    }


def _field(panel: Panel) -> Json:
    defaults: Json = {
        "unit": panel.unit,
        "min": None if panel.kind == "state-timeline" else 0,
        "max": panel.top,
        "color": {"mode": "thresholds" if panel.kind != "timeseries" else "palette-classic"},
        "thresholds": {
            "mode": "absolute",
            "steps": [{"value": value, "color": colour} for value, colour in panel.steps],
        },
        "mappings": [
            {
                "type": "value",
                "options": {
                    value: {"text": text, "color": colour, "index": index}
                    for index, (value, (text, colour)) in enumerate(panel.words.items())
                },
            }
        ]
        if panel.words
        else [],
    }
    if panel.kind == "timeseries":
        defaults["custom"] = {
            "drawStyle": "line",
            "lineWidth": 1,
            "fillOpacity": 40 if panel.stack else 8,
            "showPoints": "never",
            "spanNulls": False,
            "stacking": {"mode": "normal" if panel.stack else "none", "group": "A"},
        }
    overrides = [
        {
            "matcher": {"id": "byName", "options": name},
            "properties": [{"id": "color", "value": {"mode": "fixed", "fixedColor": colour}}],
        }
        for name, colour in panel.colours.items()
    ]
    return {"defaults": {k: v for k, v in defaults.items() if v is not None}, "overrides": overrides}


def _panels(panels: tuple[Panel, ...]) -> list[Json]:
    """Left to right, a new line where one is full."""
    drawn, x, y, line = [], 0, 0, 0
    for number, panel in enumerate(panels, start=1):
        if x + panel.width > WIDTH:
            x, y, line = 0, y + line, 0
        drawn.append(
            {
                "id": number,
                "type": panel.kind,
                "title": panel.title,
                "description": panel.says,
                "datasource": SOURCE,
                "gridPos": {"x": x, "y": y, "w": panel.width, "h": panel.height},
                "targets": [
                    {
                        "refId": chr(ord("A") + place),
                        "datasource": SOURCE,
                        "expr": query.expr,
                        "legendFormat": query.legend or panel.title,
                        "range": True,
                    }
                    for place, query in enumerate(panel.queries)
                ],
                "fieldConfig": _field(panel),
                "options": _draw(panel),
            }
        )
        x, line = x + panel.width, max(line, panel.height)
    return drawn


def _variable(name: str, label: str, query: str) -> Json:
    return {
        "name": name,
        "label": label,
        "type": "query",
        "datasource": SOURCE,
        "query": {"query": query, "refId": "variable"},
        "definition": query,
        "refresh": 2,  # with the time range
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": ".+",
        "current": {"text": ["All"], "value": ["$__all"]},
    }


def dashboard(
    uid: str, title: str, panels: tuple[Panel, ...], *variables: Json, since: str = "now-1h"
) -> Json:
    """A whole dashboard."""
    return {
        "uid": uid,
        "title": title,
        "tags": ["tidegate"],
        "schemaVersion": 41,
        "version": 1,
        "editable": False,
        "graphTooltip": 1,  # one crosshair over all panels
        "refresh": "5s",
        "time": {"from": since, "to": "now"},
        "timezone": "browser",
        "links": [
            {
                "type": "dashboards",
                "title": "Tidegate",
                "tags": ["tidegate"],
                "asDropdown": False,
                "includeVars": False,
                "keepTime": True,
            }
        ],
        "annotations": {"list": []},
        "templating": {"list": list(variables)},
        "panels": _panels(panels),
    }


def dashboards() -> dict[str, Json]:
    """Every dashboard by its file's name."""
    route = _variable("route", "Route", "label_values(tidegate_requests_total, route)")
    sku = _variable("sku", "Product", "label_values(shop_stock, sku)")
    return {
        "gateway.json": dashboard("tidegate-gateway", "Gateway", GATEWAY, route),
        "shop.json": dashboard("tidegate-shop", "Shop", SHOP, sku),
        "sale-night.json": dashboard("tidegate-sale-night", "Sale night", SALE_NIGHT, sku, since="now-15m"),
    }


def render(content: Json) -> str:
    """As it stands in the file."""
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def main(words: list[str]) -> int:
    """Write what is not current, or name it; the exit status."""
    DASHBOARDS.mkdir(exist_ok=True)
    stale = []
    for name, content in dashboards().items():
        file = DASHBOARDS / name
        if not file.exists() or file.read_text(encoding="utf-8") != render(content):
            stale.append(name)
            if "--check" not in words:
                file.write_text(render(content), encoding="utf-8")
    if stale and "--check" in words:
        sys.stderr.write(f"{', '.join(stale)}: not current; run scripts/lint --fix\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
