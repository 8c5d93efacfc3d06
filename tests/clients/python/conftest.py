import pytest

from service import Service


@pytest.fixture(scope="module")
def service():
    """One service for a file. At its end it must still answer, without a panic."""
    with Service() as running:
        yield running
