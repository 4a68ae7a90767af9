"""A service for all tests of a file, and a client of it that leaves nothing behind."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from devbc.client import Hypervisor
from tests.service.served import Served, nothing_left, served


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(tmp_path_factory.mktemp("service")) as found:
        yield found


@pytest.fixture
def hypervisor(service: Served) -> Iterator[Hypervisor]:
    with nothing_left(service), service.connect() as found:
        yield found
