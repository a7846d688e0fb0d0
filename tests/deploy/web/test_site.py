"""A site holds what the page needs; what does not fit is refused with a message and leaves no site."""

import http.client
import json
import re
import threading

import pytest

from deploy.bundle_files import BundleError
from deploy.commands import COMMANDS
from deploy.manifest import load_manifest
from deploy.web import SiteOptions, build_site, make_server
from deploy.web import runtime as runtime_module
from deploy.web.model_files import Adapter, SiteModel, read_model
from deploy.web.runtime import check_integrity, runtime_files
from deploy.web.server import HEADERS, TYPES
from deploy.web.settings import site_settings
from deploy.web.site import STATIC
from imu_saga.signal.gravity import CausalHighPass
from shared_peft.atomic import sha256_of
from shared_peft.command import run_commands
from shared_peft.errors import ExportError, MissingPackageError


@pytest.fixture
def fake_runtime(tmp_path, monkeypatch):
    """A folder that stands for onnxruntime-web, its hashes pinned."""
    folder = tmp_path / "runtime"
    (folder / "dist").mkdir(parents=True)
    for name in runtime_module.SHA256:
        (folder / "dist" / name).write_text(f"stands for {name}")
    hashes = {name: sha256_of(folder / "dist" / name) for name in runtime_module.SHA256}
    monkeypatch.setattr(runtime_module, "SHA256", hashes)
    return folder


@pytest.fixture
def bundle(bundle_of, monkeypatch):
    """A toy's bundle; its preprocessing is not read."""
    monkeypatch.setitem(site_settings.__globals__["_PARTS"], "vision", lambda manifest, hop_s: {})
    return bundle_of()[1]


def test_a_site_is_complete_and_lists_itself(bundle, fake_runtime, tmp_path, capsys):
    site = tmp_path / "site"
    arguments = ["web", str(bundle), "--out", str(site), "--runtime", str(fake_runtime), "--title", "A <b> & c"]
    assert run_commands("deploy", COMMANDS, arguments) == 0
    assert "works offline" in capsys.readouterr().out
    present = {path.relative_to(site).as_posix() for path in site.rglob("*") if path.is_file()}
    version, files = (json.loads(line.partition("= ")[2][:-1]) for line in (site / "files.js").read_text().splitlines())
    assert {*files, "worker.js", "files.js"} == {*present, "./"}
    assert re.fullmatch(r"[0-9a-f]{16}", version)
    settings = json.loads((site / "settings.json").read_text())
    assert settings["title"] == json.loads((site / "app.webmanifest").read_text())["name"] == "A <b> & c"
    for entry in (settings["model"], settings["golden"]):
        assert sha256_of(site / entry["path"]) == entry["sha256"]
    assert settings["adapters"][0]["classes"] == list(load_manifest(bundle).classes)


def test_every_import_and_link_of_the_page_is_a_file_of_the_site(bundle, fake_runtime, tmp_path):
    site = tmp_path / "site"
    build_site(bundle, site, SiteOptions(fake_runtime))
    for path in site.rglob("*.mjs"):
        for name in re.findall(r'from "(\.[^"]+)"', path.read_text()):
            assert (path.parent / name).is_file(), (path, name)
    for name in re.findall(r'(?:href|src)="([^"]+)"', (site / "index.html").read_text()):
        assert (site / name).is_file(), name


def test_the_page_names_no_other_host_and_has_no_inline_code():
    for path in STATIC.rglob("*"):
        if path.suffix in (".mjs", ".js", ".css", ".html"):
            assert not re.search(r"https?://|//[a-z]+\.[a-z]+/", path.read_text()), path
    page = (STATIC / "index.html").read_text()
    assert "default-src 'none'" in page
    assert "unsafe-inline" not in page
    assert not re.search(r"<script>|\son\w+=|\sstyle=", page)


def test_another_version_of_the_site_is_another_version_of_the_cache(bundle, fake_runtime, tmp_path):
    build_site(bundle, tmp_path / "one", SiteOptions(fake_runtime, "one"))
    build_site(bundle, tmp_path / "same", SiteOptions(fake_runtime, "one"))
    build_site(bundle, tmp_path / "two", SiteOptions(fake_runtime, "two"))
    one, same, two = ((tmp_path / name / "files.js").read_text() for name in ("one", "same", "two"))
    assert one == same != two


def test_a_runtime_that_was_changed_or_is_missing_is_refused_and_leaves_no_site(bundle, fake_runtime, tmp_path):
    (fake_runtime / "dist" / runtime_module.WASM).write_text("changed")
    with pytest.raises(ExportError, match=r"ort-wasm-simd-threaded\.wasm: must be that of onnxruntime-web 1\.23\.2"):
        build_site(bundle, tmp_path / "site", SiteOptions(fake_runtime))
    with pytest.raises(ExportError, match="no such file. Run `npm install onnxruntime-web@"):
        runtime_files(tmp_path)
    assert not (tmp_path / "site").exists()


def test_a_fetched_archive_must_have_the_pinned_hash():
    empty = "sha512-z4PhNX7vuL3xVChQ1m2AB9Yg5AULVxXcg/SpIdNs6c5H0NE8XYXysP+DGNKHfuwvY7kxvUdBeoGlODJ6+SfaPg=="
    check_integrity(b"", "archive", empty)
    with pytest.raises(ExportError, match="archive: must have the integrity sha512-"):
        check_integrity(b"changed", "archive", empty)


def test_without_npm_the_error_says_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingPackageError, match="npm: must be installed to fetch onnxruntime-web.*--runtime"):
        runtime_files(None)


def test_a_failing_npm_is_told(monkeypatch, tmp_path):
    (tmp_path / "npm").write_text("#!/bin/sh\necho 'no network' >&2\nexit 1\n")
    (tmp_path / "npm").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    with pytest.raises(ExportError, match="npm pack: must fetch onnxruntime-web@.*no network"):
        runtime_files(None)


def test_changed_bundles_and_taken_folders_are_refused(bundle_copy, fake_runtime, tmp_path):
    with pytest.raises(ExportError, match="must be a new folder"):
        build_site(bundle_copy, fake_runtime, SiteOptions(fake_runtime))
    (bundle_copy / "model.onnx").write_bytes(b"changed")
    with pytest.raises(BundleError, match=r"model\.onnx: must have"):
        build_site(bundle_copy, tmp_path / "site", SiteOptions(fake_runtime))
    assert not (tmp_path / "site").exists()


def site_model(manifest):
    """A model whose files are empty."""
    names = (manifest.model_file, "golden.safetensors")
    return SiteModel(manifest, dict.fromkeys(names, b""), (Adapter("default", manifest.classes),))


def motion_manifest(bundle_of, **changes):
    from dataclasses import replace

    steps = {"rate_hz": 20.0, "samples": 40, "channels": ["acc_x", "acc_y", "acc_z"], "gravity": "removed"} | changes
    return replace(load_manifest(bundle_of()[1]), kind="imu_saga", preprocessing=steps)


def test_the_settings_of_a_motion_model_hold_hop_and_filter(bundle_of):
    stream = site_settings(site_model(motion_manifest(bundle_of)), hop_s=0.5)["stream"]
    assert (stream["rate_hz"], stream["samples"], stream["hop"]) == (20.0, 40, 10)
    assert stream["high_pass"]["sections"] == CausalHighPass(20.0, 1).sections.tolist()
    kept = site_settings(site_model(motion_manifest(bundle_of, gravity="kept")))["stream"]
    assert (kept["high_pass"], kept["hop"]) == (None, 40)


@pytest.mark.parametrize(
    ("changes", "hop_s", "message"),
    [
        ({"channels": ["acc_x", "mag_x"]}, None, "which browsers measure, got mag_x"),
        ({}, 0.01, "--hop-s: must be a sample or more, 0.05 s, got 0.01"),
    ],
)
def test_motion_models_a_browser_cannot_feed_are_refused(bundle_of, changes, hop_s, message):
    with pytest.raises(ExportError, match=message):
        site_settings(site_model(motion_manifest(bundle_of, **changes)), hop_s=hop_s)


def test_a_picture_model_without_its_preprocessing_or_with_a_hop_is_refused(bundle_of):
    model = read_model(bundle_of()[1])
    with pytest.raises(ExportError, match="preprocessing must hold channels"):
        site_settings(model)
    with pytest.raises(ExportError, match="--hop-s: must be left out"):
        site_settings(model, hop_s=1.0)


def test_a_site_is_served_with_its_types_and_headers(tmp_path):
    (tmp_path / "settings.json").write_text("{}")
    for suffix in TYPES:
        (tmp_path / f"file{suffix}").write_text("x")
    with make_server(tmp_path, 0) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=10)
            for suffix, kind in TYPES.items():
                connection.request("GET", f"/file{suffix}")
                answer = connection.getresponse()
                assert (answer.read(), answer.headers["Content-Type"]) == (b"x", kind)
                assert {name: answer.headers[name] for name in HEADERS} == HEADERS
            connection.request("GET", f"/../{tmp_path.name}/settings.json")  # outside of the site, and in it again
            assert connection.getresponse().status == 404
            connection.close()
            with pytest.raises(ExportError, match="--port: must be free"):
                make_server(tmp_path, server.server_port)
        finally:
            server.shutdown()
            thread.join()


def test_serving_what_is_no_site_is_a_users_error(tmp_path, capsys):
    assert run_commands("deploy", COMMANDS, ["serve", str(tmp_path)]) == 2
    assert "must be a site with settings.json" in capsys.readouterr().err
