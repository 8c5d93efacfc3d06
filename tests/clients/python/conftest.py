import pytest

from service import Service


@pytest.fixture(scope="module")
def service(request):
    """One service for a file, with the file's SETTINGS. At its end it must still answer, without a panic."""
    with Service(**getattr(request.module, "SETTINGS", {})) as running:
        yield running
