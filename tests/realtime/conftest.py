import pytest


@pytest.fixture(params=[{"use_uvloop": False}, {"use_uvloop": True}], ids=["asyncio", "uvloop"])
def anyio_backend(request):
    """Both loops: production runs on uvloop, and a machine without it on asyncio's own."""
    return "asyncio", request.param
