"""What the tests of the audit share."""

from __future__ import annotations

import pytest

from tests.ops.admin_api import Api
from tests.ops.audit_world import World, build


@pytest.fixture
def world(migrated_database_url: str, redis_durable_url: str) -> World:
    """A shop whose every invariant holds."""
    return build(migrated_database_url, redis_durable_url)


@pytest.fixture
def api() -> Api:
    """An admin API to script."""
    return Api()
