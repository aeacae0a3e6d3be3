"""The master process itself: what fails at the start leaves nothing behind."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from gateway import master
from gateway.master import Master, Overrides


def _config(folder: Path, **keys: Any) -> Path:
    file = folder / "gateway.yaml"
    config = {
        "listen": {"port": 0, "workers": 2},
        "admin": {"port": 0},
        "upstreams": {"shop": {"servers": ["http://127.0.0.1:9"]}},
        "routes": [{"match": "/**", "upstream": "shop"}],
    }
    file.write_text(yaml.safe_dump(config | keys))
    return file


@pytest.mark.parametrize("broken", ["build", "serve_admin"])
async def test_an_admin_app_that_fails_leaves_no_worker(
    broken: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The master says why and ends; its workers before it, where there are some."""

    def fail(*_: Any) -> Any:
        raise RuntimeError("no console")

    monkeypatch.setattr(*((master.api, "build") if broken == "build" else (master, "serve_admin")), fail)
    gateway = Master(_config(tmp_path), Overrides(), {})
    before = {child.pid for child in psutil.Process().children(recursive=True)}

    with pytest.raises(RuntimeError, match="no console"):
        await asyncio.wait_for(gateway.run(), 60)

    assert {child.pid for child in psutil.Process().children(recursive=True)} <= before
