"""Node, and what the tests of the page share."""

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from deploy.web.site import STATIC


@pytest.fixture(scope="session")
def node() -> Callable[[str, Any], Any]:
    """Run a function body of JavaScript on JSON ``data``; what it returns comes back. ``load(path)`` is an import."""
    program = shutil.which("node")
    if program is None:
        pytest.skip("node is not installed")

    def run(body: str, data: Any = None, *, static: Path = STATIC) -> Any:
        script = f"""
        const load = (path) => import({json.dumps(static.as_uri() + "/")} + path);
        const chunks = [];
        for await (const chunk of process.stdin) chunks.push(chunk);
        const data = JSON.parse(Buffer.concat(chunks).toString());
        const answer = await (async () => {{ {body} }})();
        process.stdout.write(JSON.stringify(answer ?? null));
        """
        command = [program, "--input-type=module", "--eval", script]
        done = subprocess.run(command, input=json.dumps(data), capture_output=True, text=True, check=False, timeout=120)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run
