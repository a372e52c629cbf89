"""Commits, reloads, uploads and downloads of a Volume, timed where a program would wait for them."""

import asyncio
import base64
import hashlib
import io
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from urllib.parse import urlsplit

import modal

app = modal.App("homeport-bench-commit")
# The same in the client and in containers.
NAME = "homeport-bench-commit"
volume = modal.Volume.from_name(NAME, create_if_missing=True)
image = modal.Image.debian_slim()
MIB = 1 << 20
RESULT = "HOMEPORT_BENCH_RESULT"

# Opens and looks at a file as fast as it can until its standard input ends, and says how often that failed.
READER = """
import os, select, sys
tries = failures = 0
while not select.select([sys.stdin], [], [], 0)[0]:
    for _ in range(200):
        tries += 1
        try:
            os.stat("/vol/0000")
            os.close(os.open("/vol/0000/0", os.O_RDONLY))
        except OSError:
            failures += 1
print(tries, failures)
"""


def timed(action):
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def write(path, text):
    with open(path, "w") as file:
        file.write(text)


@app.function(image=image, volumes={"/vol": volume}, timeout=3600)
def small(files, rounds, reloads):
    for number in range(files):
        directory = f"/vol/{number // 1000:04}"
        if number % 1000 == 0:
            os.mkdir(directory)
        write(f"{directory}/{number}", f"{number} " * 200)
    found = {"first commit": [timed(volume.commit)]}
    for key in ("commit", "reload"):
        found[key] = []
    for number in range(rounds):
        write("/vol/0000/0", f"changed {number}")
        found["commit"].append(timed(volume.commit))
    reader = subprocess.Popen([sys.executable, "-c", READER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    for number in range(reloads):
        # Something to load: a commit shows what it made, unless somebody else was first.
        write("/vol/0000/1", f"again {number}")
        volume.commit()
        found["reload"].append(timed(volume.reload))
    found["opens"] = [int(word) for word in reader.communicate("")[0].split()]
    return found


@app.function(image=image, volumes={"/vol": volume}, timeout=3600)
def large(size):
    def whole():
        block = os.urandom(4 * MIB)
        with open("/vol/large", "wb") as file:
            for number in range(size // len(block)):
                # Each block differs.
                file.write(number.to_bytes(8, "little") + block[8:])

    def change():
        """One per cent, in pieces of 1 MiB over the whole file, or in fewer where it is small."""
        pieces = max(size // 100 // MIB, 1)
        with open("/vol/large", "r+b") as file:
            for piece in range(pieces):
                file.seek(size // pieces * piece)
                file.write(os.urandom(min(MIB, size // 100)))

    found = {"write": [timed(whole)], "commit": [timed(volume.commit)], "change": [], "changed commit": []}
    for _ in range(3):
        found["change"].append(timed(change))
        found["changed commit"].append(timed(volume.commit))
    return found


def send(method, url, data=None):
    """The length and the tag of the answer."""
    address = urlsplit(url)
    connection = HTTPConnection(address.hostname, address.port)
    connection.request(method, f"{address.path}?{address.query}", data)
    answer = connection.getresponse()
    length = len(answer.read())
    connection.close()
    assert answer.status == 200, f"{method} answered {answer.status}"
    return length, answer.headers.get("ETag")


def send_all(created, data):
    """All of a blob at once, or in the parts that the server asks for."""
    # Newer clients know several blobs at once.
    several = "multiparts" in created.DESCRIPTOR.fields_by_name
    whole = created.upload_urls.items[0] if several and created.upload_urls.items else created.upload_url
    if whole:
        return send("PUT", whole, data)
    multipart = created.multiparts.items[0] if several and created.multiparts.items else created.multipart
    urls, length = multipart.upload_urls, multipart.part_length
    parts = [memoryview(data)[number * length : (number + 1) * length] for number in range(len(urls))]
    with ThreadPoolExecutor(len(urls)) as pool:
        tags = [tag for _, tag in pool.map(lambda part: send("PUT", *part), zip(urls, parts))]
    listed = (f"<Part><PartNumber>{n}</PartNumber><ETag>{tag}</ETag></Part>" for n, tag in enumerate(tags, 1))
    document = f"<CompleteMultipartUpload>{''.join(listed)}</CompleteMultipartUpload>"
    return send("POST", multipart.completion_url, document.encode())


def plain_blob(data):
    """Seconds to send the same bytes to the same server by HTTP and nothing else, and to get them back."""
    from grpclib.client import Channel
    from modal_proto import api_grpc, api_pb2

    metadata = {
        "x-modal-client-version": modal.__version__,
        "x-modal-client-type": "1",
        "x-modal-token-id": os.environ["MODAL_TOKEN_ID"],
        "x-modal-token-secret": os.environ["MODAL_TOKEN_SECRET"],
    }
    address = urlsplit(os.environ["MODAL_SERVER_URL"])

    def ask(method, request):
        async def asked():
            async with Channel(address.hostname, address.port) as channel:
                return await getattr(api_grpc.ModalClientStub(channel), method)(request, metadata=metadata)

        return asyncio.run(asked())

    digests = [base64.b64encode(hashlib.new(kind, data).digest()).decode() for kind in ("md5", "sha256")]
    created = ask(
        "BlobCreate",
        api_pb2.BlobCreateRequest(
            content_md5=digests[0], content_sha256_base64=digests[1], content_length=len(data)
        ),
    )
    sent = timed(lambda: send_all(created, data))
    blob_id = created.blob_id or created.blob_ids[0]
    got = ask("BlobGet", api_pb2.BlobGetRequest(blob_id=blob_id))
    return sent, timed(lambda: send("GET", got.download_url))


def payload(size, rounds):
    found = {"plain upload": [], "upload": [], "plain download": [], "download": []}
    for number in range(rounds):
        sent, got = plain_blob(os.urandom(size))
        data = io.BytesIO(os.urandom(size))

        def upload():
            with volume.batch_upload(force=True) as batch:
                batch.put_file(data, "payload")

        def download():
            assert sum(map(len, volume.read_file("payload"))) == size

        for key, seconds in (
            ("plain upload", sent),
            ("upload", timed(upload)),
            ("plain download", got),
            ("download", timed(download)),
        ):
            found[key].append(seconds)
    return found


@app.local_entrypoint()
def main(files: int, rounds: int, reloads: int, large_bytes: int, payload_bytes: int):
    try:
        found = {
            "small": small.remote(files, rounds, reloads),
            "large": large.remote(large_bytes),
            "payload": payload(payload_bytes, min(rounds, 5)),
        }
    finally:
        subprocess.run([sys.executable, "-m", "modal", "volume", "delete", NAME, "--yes"], check=False)
    with open(os.environ[RESULT] + ".new", "w") as file:
        json.dump(found, file)
    os.rename(os.environ[RESULT] + ".new", os.environ[RESULT])
