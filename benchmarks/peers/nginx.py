"""nginx of the distribution: alone, and with Lua asking Redis for the limits."""

from __future__ import annotations

import getpass
from pathlib import Path
from typing import ClassVar

from typing_extensions import override

from benchmarks.peers.peer import HERE, Peer, on_path, says
from benchmarks.processes import Command
from benchmarks.site import Site, write

_MODULES = (Path("/usr/lib/nginx/modules"), Path("/usr/share/nginx/modules"))
_LUA_MODULES = ("ndk_http_module.so", "ngx_http_lua_module.so")
_LUA = Path("/usr/share/lua/5.1")


class Nginx(Peer):
    """limit_req for all and for each user, passive health checks, access log."""

    name: ClassVar[str] = "nginx"
    lacks: ClassVar[str] = "breaker per server only (max_fails)"
    template: ClassVar[str] = "nginx.conf"

    @override
    def program(self) -> Path | None:
        return on_path("nginx")

    @override
    def version(self) -> str:
        return says(self.installed(), "-v").rpartition("/")[2]

    @override
    def command(self, site: Site) -> Command:
        config = write(
            site,
            HERE / self.template,
            account=getpass.getuser(),
            overall_rate=_notation(site.overall.count, site.overall.seconds),
            user_rate=_notation(site.user.count, site.user.seconds),
            overall_burst=_burst(site.overall.count),
            user_burst=_burst(site.user.count),
            redis=site.redis,
            modules=_modules(),
            lua=HERE,
        )
        return Command((self.installed(), "-p", str(site.folder), "-e", "error.log", "-c", str(config)), {})


class NginxLuaRedis(Nginx):
    """One script call in Redis for each request: both limits, all or none."""

    name: ClassVar[str] = "nginx+lua+redis"
    template: ClassVar[str] = "nginx_lua.conf"
    uses_redis: ClassVar[bool] = True

    @override
    def missing(self) -> str | None:
        if _modules() is None:
            return "nginx's Lua module (libnginx-mod-http-lua) is not installed"
        if not (_LUA / "nginx" / "redis.lua").exists():
            return "the Redis client of nginx's Lua (lua-nginx-redis, once lua-resty-redis) is not installed"
        return super().missing()


def _modules() -> Path | None:
    found = (folder for folder in _MODULES if all((folder / name).exists() for name in _LUA_MODULES))
    return next(found, None)


def _burst(count: int) -> str:
    """A whole window's requests may come at once; nginx refuses to read a burst of 0."""
    return f"burst={count - 1} nodelay" if count > 1 else ""


def _notation(count: int, seconds: int) -> str:
    """Nginx knows requests a second or a minute."""
    return f"{count}r/s" if seconds == 1 else f"{max(1, count * 60 // seconds)}r/m"
