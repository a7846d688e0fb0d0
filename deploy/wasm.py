"""onnxruntime-web in node, from the two pinned files the page has as well, without installing anything.

The script asks whether it came from where the page came from, and fetches the WASM beside itself; node has neither page
nor fetch of files. An opaque origin, a script read from memory and the WASM as a blob answer all three.
"""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

from deploy.web.runtime import SCRIPT, WASM
from shared_peft.errors import ExportError, MissingPackageError

_TIMEOUT_S = 300
_LAST_LINES = 3
_SCRIPT = """\
import { readFile } from "node:fs/promises";
const chunks = [];
for await (const chunk of process.stdin) chunks.push(chunk);
const { runtime, data } = JSON.parse(Buffer.concat(chunks).toString());
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


def run_in_node(runtime: Path, body: str, data: Any) -> Any:
    """Run a function body of JavaScript that has `ort`, `readFile` and ``data``.

    Args:
        runtime: folder of an installed onnxruntime-web; its files are taken as they are.
        body: what it returns comes back.
        data: JSON values.

    Returns:
        What the body returned, through JSON.

    Raises:
        MissingPackageError: node is not installed.
        ExportError: the body threw, or did not end.
    """
    program = shutil.which("node")
    if program is None:
        raise MissingPackageError("WASM in node", "node must be installed", "none on the PATH", "Install Node.js 18")
    files = {"script": str(runtime / "dist" / SCRIPT), "wasm": str(runtime / "dist" / WASM)}
    command = [program, "--input-type=module", "--eval", _SCRIPT.replace("BODY", body)]
    fix = "Run the bundle with another runtime, or export it again"
    try:
        done = subprocess.run(
            command,
            input=json.dumps({"runtime": files, "data": data}),
            capture_output=True,
            text=True,
            check=False,
            timeout=_TIMEOUT_S,
        )
    except subprocess.TimeoutExpired as error:
        raise ExportError("WASM in node", f"must end within {_TIMEOUT_S} s", "no end", fix) from error
    if done.returncode:
        told = [line for line in done.stderr.splitlines() if line.strip() and not line.lstrip().startswith("at ")]
        got = " ".join(line.strip()[:200] for line in told[-_LAST_LINES:]) or f"status {done.returncode}"
        raise ExportError("WASM in node", "onnxruntime-web must answer", got, fix)
    return json.loads(done.stdout)
