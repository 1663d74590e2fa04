import pytest

from mlx_ddtree import load

from . import running


@pytest.fixture(scope="session")
def pair():
    """What the server has, loaded in this thread."""
    return load()


@pytest.fixture(scope="session")
def engine():
    with running.started(running.make_engine()) as engine:
        yield engine


@pytest.fixture(scope="session")
def site(engine):
    with running.serving(engine) as site:
        yield site
