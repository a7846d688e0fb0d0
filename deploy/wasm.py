"""onnxruntime-web outside the page: in node and in a headless browser, on the page's two pinned files alone."""

import json
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from deploy.web.runtime import SCRIPT, WASM
from shared_peft.errors import ExportError, MissingPackageError

TIMEOUT_S = 300
_LAST_LINES = 3
_FIX = "Run the bundle with another runtime, or export it again"
# The runtime asks whether it came from where the page came from, and fetches the WASM. Node has no page, and fetches no
# files: an opaque origin, a script read from memory and the WASM as a blob take their places.
_NODE = """\
import { readFile } from "node:fs/promises";
const chunks = [];
for await (const chunk of process.stdin) chunks.push(chunk);
const { runtime, files, data } = JSON.parse(Buffer.concat(chunks).toString());
const bytesOf = async (name) => new Uint8Array(await readFile(files[name]));
globalThis.location = { origin: "null" };
const script = await readFile(runtime.script);
const ort = await import("data:text/javascript;base64," + script.toString("base64"));
ort.env.logLevel = "error";
ort.env.wasm.numThreads = 1;
const wasm = new Blob([await readFile(runtime.wasm)], { type: "application/wasm" });
ort.env.wasm.wasmPaths = { wasm: URL.createObjectURL(wasm) };
const answer = await (async () => { BODY })();
process.stdout.write(JSON.stringify(answer ?? null));
"""


def run_in_node(
    runtime: Mapping[str, bytes], body: str, data: Any, files: Mapping[str, Path] | None = None, *, node: str = "node"
) -> Any:
    """Run a function body of JavaScript that has `ort`, ``data`` and `bytesOf(name)` in node, on one thread.

    Args:
        runtime: of `deploy.web.runtime.runtime_files`.
        body: what it returns comes back.
        data: JSON values.
        files: what `bytesOf` reads, by name.
        node: the program.

    Returns:
        What the body returned, through JSON.

    Raises:
        MissingPackageError: node is not installed.
        ExportError: the body threw, or did not end.
    """
    program = shutil.which(node)
    if program is None:
        raise MissingPackageError("WASM in node", f"{node} must be installed", "none on the PATH", "Install Node.js 18")
    with tempfile.TemporaryDirectory() as scratch:
        for name in (SCRIPT, WASM):
            Path(scratch, name).write_bytes(runtime[name])
        own = {"script": str(Path(scratch, SCRIPT)), "wasm": str(Path(scratch, WASM))}
        given = {name: str(path.absolute()) for name, path in (files or {}).items()}
        command = [program, "--input-type=module", "--eval", _NODE.replace("BODY", body)]
        text = json.dumps({"runtime": own, "files": given, "data": data})
        try:
            done = subprocess.run(
                command, input=text, capture_output=True, text=True, check=False, timeout=TIMEOUT_S, cwd=scratch
            )
        except subprocess.TimeoutExpired as error:
            raise ExportError("WASM in node", f"must end within {TIMEOUT_S} s", "no end", _FIX) from error
    if done.returncode:
        told = [line.strip() for line in done.stderr.splitlines() if line.strip() and not _is_place(line)]
        got = " ".join(line[:200] for line in told[-_LAST_LINES:]) or f"status {done.returncode}"
        raise ExportError("WASM in node", "onnxruntime-web must answer", got, _FIX)
    return json.loads(done.stdout)


def _is_place(line: str) -> bool:
    """Tell whether a line of a JavaScript error only says where it happened."""
    return line.lstrip().startswith(("at ", "Node.js v"))
