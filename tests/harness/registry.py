"""A registry server on loopback with one real image in it: Debian with Python, and layers that are hard to unpack."""

import contextlib
import gzip
import hashlib
import io
import json
import shutil
import socket
import subprocess
import tarfile
from pathlib import Path
from typing import Iterator, List, Optional

from .server import free_port
from .waiting import wait_for

REPOSITORY, TAG = "tests/python", "layered"
# A login, and the line of `htpasswd` that stands for it.
USER, PASSWORD = "reader", "harbour"
PASSWORD_LINE = f"{USER}:$2b$04$gvmpBJoAj77u6reH/46KtOZ9fpHLMLQwCDtx0HRrp0IClpBK/QypK\n"
MEDIA = "application/vnd.oci.image"


@contextlib.contextmanager
def registry(directory: Path, cache: Path) -> Iterator[str]:
    """Serves the image for as long as the context lasts; gives the registry's address."""
    with _serving(directory, "open") as address:
        layout = directory / "layout"
        write_layout(layout, [debian_with_python(cache), first_layer(), second_layer()])
        skopeo = ["skopeo", "--insecure-policy", "copy", "--dest-tls-verify=false"]
        subprocess.run([*skopeo, f"oci:{layout}:{TAG}", f"docker://{address}/{REPOSITORY}:{TAG}"], check=True)
        shutil.rmtree(layout)
        yield address


@contextlib.contextmanager
def private_registry(directory: Path) -> Iterator[str]:
    """Serves what the registry of `directory` has to those with a login."""
    (directory / "htpasswd").write_text(PASSWORD_LINE)
    login = f"auth: {{htpasswd: {{realm: tests, path: '{directory / 'htpasswd'}'}}}}\n"
    with _serving(directory, "private", login) as address:
        yield address


@contextlib.contextmanager
def _serving(directory: Path, name: str, more: str = "") -> Iterator[str]:
    port = free_port()
    address = f"127.0.0.1:{port}"
    settings = directory / f"{name}.yml"
    settings.write_text(
        f"version: 0.1\nlog: {{level: error}}\nhttp: {{addr: '{address}'}}\n"
        f"storage: {{filesystem: {{rootdirectory: '{directory / 'storage'}'}}}}\n{more}"
    )
    with open(directory / f"{name}.log", "wb") as log:
        process = subprocess.Popen(["docker-registry", "serve", str(settings)], stdout=log, stderr=log)
    try:
        wait_for("registry", lambda: _listens(port), 20)
        yield address
    finally:
        process.kill()
        process.wait()


def first_layer() -> bytes:
    with _layer() as layer:
        layer.directory("layers")
        layer.file("layers/removed", b"the next layer takes this away")
        layer.directory("layers/emptied")
        layer.file("layers/emptied/old", b"and empties this directory")
        layer.file("layers/linked", b"one file, two names")
        layer.hard_link("layers/linked-too", "layers/linked")
        layer.file("layers/owned", b"not root's", mode=0o640, owner=(1234, 567))
    return layer.content


def second_layer() -> bytes:
    with _layer() as layer:
        layer.file("layers/.wh.removed")
        layer.file("layers/emptied/.wh..wh..opq")
        layer.file("layers/emptied/new", b"came later")
        layer.file("layers/setuid", b"#!/bin/sh\n", mode=0o4755, attributes={"user.note": "kept"})
        # Debian marks its Python as not to be changed by pip; images for pip come without the mark.
        layer.file("usr/lib/python3.11/.wh.EXTERNALLY-MANAGED")
    return layer.content


class _layer:
    """Writes the tar file of a layer."""

    def __init__(self) -> None:
        self._buffer = io.BytesIO()
        self._tar = tarfile.open(fileobj=self._buffer, mode="w", format=tarfile.PAX_FORMAT)
        self.content = b""

    def __enter__(self) -> "_layer":
        return self

    def __exit__(self, *_: object) -> None:
        self._tar.close()
        self.content = self._buffer.getvalue()

    def directory(self, name: str) -> None:
        self._add(name, tarfile.DIRTYPE, mode=0o755)

    def file(self, name: str, content: bytes = b"", mode: int = 0o644, owner=(0, 0), attributes=None) -> None:
        headers = {f"SCHILY.xattr.{key}": value for key, value in (attributes or {}).items()}
        self._add(name, tarfile.REGTYPE, content, mode, owner, headers)

    def hard_link(self, name: str, target: str) -> None:
        self._add(name, tarfile.LNKTYPE, target=target)

    def _add(self, name, kind, content=b"", mode=0o644, owner=(0, 0), headers=None, target="") -> None:
        entry = tarfile.TarInfo(name)
        entry.type, entry.mode, entry.linkname, entry.size = kind, mode, target, len(content)
        entry.uid, entry.gid = owner
        entry.pax_headers = headers or {}
        self._tar.addfile(entry, io.BytesIO(content))


def debian_with_python(cache: Path) -> bytes:
    """A small Debian with python and pip, bootstrapped once with the sources of this machine's own apt."""
    tar = cache / "debian-with-python.tar"
    if not tar.exists():
        unfinished = tar.with_suffix(".unfinished.tar")
        packages = "python3,python3-pip,python-is-python3,ca-certificates"
        command = ["mmdebstrap", "--variant=minbase", f"--include={packages}", "bookworm", str(unfinished), *_debian_mirror()]
        subprocess.run(command, check=True, capture_output=True, text=True)
        unfinished.rename(tar)
    return tar.read_bytes()


def _debian_mirror() -> List[str]:
    """The address from which this machine's apt takes Debian; nothing means mmdebstrap's own choice."""
    fields = ["$(ORIGIN)", "$(CODENAME)", "$(SITE)"]
    listed = subprocess.run(
        ["apt-get", "indextargets", "--format", " ".join(fields), "Created-By: Packages"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    found: Optional[str] = None
    for line in listed.splitlines():
        origin, codename, site = line.split(" ", 2)
        if origin == "Debian" and codename == "bookworm":
            found = site
    return [found] if found else []


def write_layout(layout: Path, layers: List[bytes]) -> None:
    """An OCI image layout with gzip-compressed layers."""
    (layout / "blobs" / "sha256").mkdir(parents=True)

    def blob(content: bytes, media: str) -> dict:
        digest = hashlib.sha256(content).hexdigest()
        (layout / "blobs" / "sha256" / digest).write_bytes(content)
        return {"mediaType": f"{MEDIA}.{media}", "digest": f"sha256:{digest}", "size": len(content)}

    compressed = [blob(gzip.compress(layer, 1, mtime=0), "layer.v1.tar+gzip") for layer in layers]
    configuration = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Env": ["PATH=/usr/local/bin:/usr/bin:/bin", "FROM_REGISTRY=yes"], "Cmd": ["/bin/sh"]},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}" for layer in layers]},
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": f"{MEDIA}.manifest.v1+json",
        "config": blob(json.dumps(configuration).encode(), "config.v1+json"),
        "layers": compressed,
    }
    entry = blob(json.dumps(manifest).encode(), "manifest.v1+json")
    entry["annotations"] = {"org.opencontainers.image.ref.name": TAG}
    (layout / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
    (layout / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
