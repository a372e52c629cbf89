"""Calls functions that do nothing, as told: a JSON command a line on stdin, a JSON answer a line on stdout."""

import asyncio
import base64
import contextlib
import hashlib
import inspect
import json
import os
import pickle
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from urllib.parse import urlsplit

import modal

app = modal.App("homeport-bench-calls")
image = modal.Image.debian_slim()


def containers(most, least=0):
    """Options of a function under the names that this client has for them."""
    names = [
        (("max_containers", "concurrency_limit"), most),
        (("min_containers", "keep_warm"), least or None),
        (("scaledown_window", "container_idle_timeout"), 1200),
    ]
    known = inspect.signature(app.function).parameters
    return {next(name for name in both if name in known): value for both, value in names}


@app.function(image=image, **containers(1))
def one(pause=0.0):
    return where(pause)


@app.function(image=image, **containers(4, least=4))
def four(pause=0.0):
    return where(pause)


@app.function(image=image, **containers(1))
def take(data):
    return None


@app.function(image=image, timeout=3600, **containers(1))
def held(seconds=0.0):
    time.sleep(seconds)


def where(pause):
    """Nothing, but for a warm-up, which wants to know which container that was."""
    if pause:
        time.sleep(pause)
        return os.environ.get("MODAL_TASK_ID")
    return None


FUNCTIONS = {"one": one, "four": four, "take": take, "held": held}


def warm(function, containers):
    """Calls until so many containers have answered."""
    seen = set()
    deadline = time.monotonic() + 300
    while len(seen) < containers and time.monotonic() < deadline:
        seen.update(FUNCTIONS[function].map([0.05] * (4 * containers)))
    assert len(seen) >= containers, f"only {len(seen)} of {containers} containers came up"
    return {}


def remote(function, count):
    seconds = []
    for _ in range(count):
        began = time.perf_counter()
        FUNCTIONS[function].remote()
        seconds.append(time.perf_counter() - began)
    return {"seconds": seconds}


def map(function, inputs):
    began = time.perf_counter()
    answered = sum(1 for _ in FUNCTIONS[function].map([0.0] * inputs, order_outputs=False))
    elapsed = time.perf_counter() - began
    assert answered == inputs, f"{answered} answers to {inputs} inputs"
    return {"seconds": [elapsed]}


def payload(bytes):
    data = os.urandom(bytes)
    began = time.perf_counter()
    take.remote(data)
    return {"seconds": [time.perf_counter() - began]}


@contextlib.asynccontextmanager
async def plain_calls():
    """The calls themselves, without what the client does around them."""
    from grpclib.client import Channel
    from modal_proto import api_grpc

    address = urlsplit(os.environ["MODAL_SERVER_URL"])
    async with Channel(address.hostname, address.port) as channel:
        yield api_grpc.ModalClientStub(channel)


METADATA = {
    "x-modal-client-version": modal.__version__,
    "x-modal-client-type": "1",
    "x-modal-token-id": os.environ.get("MODAL_TOKEN_ID", ""),
    "x-modal-token-secret": os.environ.get("MODAL_TOKEN_SECRET", ""),
}


def send(method, url, data):
    address = urlsplit(url)
    connection = HTTPConnection(address.hostname, address.port)
    connection.request(method, f"{address.path}?{address.query}", data)
    answer = connection.getresponse()
    answer.read()
    connection.close()
    assert answer.status == 200, f"{url} answered {answer.status}"
    return answer.headers.get("ETag", "").strip('"')


def upload(bytes):
    """The same bytes to the server's endpoint for them, by HTTP and nothing else. Their digests are not timed."""
    from modal_proto import api_pb2

    data = os.urandom(bytes)
    digests = [base64.b64encode(hashlib.new(name, data).digest()).decode() for name in ("md5", "sha256")]
    request = api_pb2.BlobCreateRequest(
        content_md5=digests[0], content_sha256_base64=digests[1], content_length=bytes
    )

    async def create():
        async with plain_calls() as calls:
            return await calls.BlobCreate(request, metadata=METADATA)

    answer = asyncio.run(create())
    many = "upload_urls" in answer.DESCRIPTOR.fields_by_name
    parts = answer.multiparts.items[0] if many and answer.multiparts.items else answer.multipart
    if not parts.upload_urls:
        url = answer.upload_urls.items[0] if many else answer.upload_url
        began = time.perf_counter()
        send("PUT", url, data)
        return {"seconds": [time.perf_counter() - began]}
    began = time.perf_counter()
    length = parts.part_length
    pieces = [memoryview(data)[start : start + length] for start in range(0, bytes, length)]
    with ThreadPoolExecutor(len(pieces)) as pool:
        tags = list(pool.map(send, ["PUT"] * len(pieces), parts.upload_urls, pieces))
    rows = "".join(
        f"<Part><PartNumber>{number}</PartNumber><ETag>{tag}</ETag></Part>" for number, tag in enumerate(tags, 1)
    )
    send("POST", parts.completion_url, f"<CompleteMultipartUpload>{rows}</CompleteMultipartUpload>".encode())
    return {"seconds": [time.perf_counter() - began]}


def queue(inputs):
    """Puts inputs into the queue of a function that is busy with the first of them, in the batches of a map."""
    from modal_proto import api_pb2

    arguments = api_pb2.FunctionInput(args=pickle.dumps(((3600.0,), {}), protocol=4), data_format=1)
    batch, call_most = 50, 9_000

    async def put():
        async with plain_calls() as calls:
            await put_with(calls)

    async def put_with(calls):
        for first in range(0, inputs, call_most):
            request = api_pb2.FunctionMapRequest(
                function_id=held.object_id, function_call_type=api_pb2.FUNCTION_CALL_TYPE_MAP
            )
            if "function_call_invocation_type" in request.DESCRIPTOR.fields_by_name:
                request.function_call_invocation_type = 4
            call = (await calls.FunctionMap(request, metadata=METADATA)).function_call_id
            last = min(inputs, first + call_most)
            for begin in range(first, last, batch):
                items = [
                    api_pb2.FunctionPutInputsItem(idx=number - first, input=arguments)
                    for number in range(begin, min(last, begin + batch))
                ]
                request = api_pb2.FunctionPutInputsRequest(
                    function_id=held.object_id, function_call_id=call, inputs=items
                )
                await calls.FunctionPutInputs(request, metadata=METADATA)

    began = time.perf_counter()
    asyncio.run(put())
    return {"seconds": [time.perf_counter() - began]}


COMMANDS = {"warm": warm, "remote": remote, "map": map, "payload": payload, "upload": upload, "queue": queue}

if __name__ == "__main__":
    # What functions and the client print must not stand between the answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    with app.run():
        print(json.dumps({"client": modal.__version__}), file=answers, flush=True)
        for line in sys.stdin:
            command = json.loads(line)
            print(json.dumps(COMMANDS[command.pop("do")](**command)), file=answers, flush=True)
