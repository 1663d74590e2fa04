"""docs/agents.md says what was run: the settings of studies/agents/parts/clients.py, with the server's usual address."""

import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CLIENTS = runpy.run_path(str(ROOT / "studies/agents/parts/clients.py"))["CLIENTS"]
AGENTS = {client.name: client for client in reversed(CLIENTS) if client.writes}


@pytest.mark.parametrize("name", AGENTS)
def test_the_page_has_the_settings_that_were_run(name):
    page = (ROOT / "docs/agents.md").read_text()
    client = AGENTS[name]
    for text in (*client.files.values(), *client.environment.values(), " ".join(client.before)):
        assert text.strip().replace("{url}", "http://127.0.0.1:8080") in page
    assert client.program in page
