"""A bare server that speaks the calls of the client in this virtual environment, and answers every input at once.

One process without containers, storage, authentication or scheduling: what the client costs by itself. Prints its port.
"""

import asyncio
import hashlib
import itertools
import pickle
import time

import grpclib.const
import grpclib.server
from aiohttp import web
from modal_proto import api_grpc, api_pb2

OUTSTANDING = 1000  # inputs of one map that may be under way, as many as Homeport allows
PAGE = 256  # outputs in one answer, as many as Homeport gives
RESULT = pickle.dumps(None, protocol=4)
SUCCESS = api_pb2.GenericResult.GENERIC_STATUS_SUCCESS

numbers = itertools.count()
calls = {}
blobs = {}
ended = asyncio.Event()
blob_address = ""


class Call:
    def __init__(self):
        self.outputs = []
        self.inputs = 0
        self.grown = asyncio.Event()

    def put(self, items, answer):
        for item in items:
            name = f"in-{next(numbers)}"
            answer.add(idx=item.idx, input_id=name)
            result = api_pb2.GenericResult(status=SUCCESS, data=RESULT)
            output = api_pb2.FunctionGetOutputsItem(
                result=result, idx=item.idx, input_id=name, data_format=api_pb2.DATA_FORMAT_PICKLE
            )
            self.outputs.append(output)
        self.grown.set()


def fresh(prefix, length=22):
    return f"{prefix}-{next(numbers):0{length}}"


def describe(metadata, name, kind):
    metadata.function_name = name
    metadata.function_type = kind or api_pb2.Function.FUNCTION_TYPE_FUNCTION


async def AppCreate(request, answer):
    answer.app_id = fresh("ap")


async def EnvironmentGetOrCreate(request, answer):
    answer.environment_id = "en-1"
    answer.metadata.name = "main"
    answer.metadata.settings.image_builder_version = "2024.10"


async def ClientHello(request, answer):
    answer.image_builder_version = "2024.04"


async def MountPutFile(request, answer):
    answer.exists = True


async def MountGetOrCreate(request, answer):
    answer.mount_id = fresh("mo")
    answer.handle_metadata.content_checksum_sha256_hex = "0" * 64


async def ImageGetOrCreate(request, answer):
    answer.image_id = fresh("im")
    if "result" in answer.DESCRIPTOR.fields_by_name:
        answer.result.status = SUCCESS


async def ImageJoinStreaming(request, answer):
    answer.result.status = SUCCESS


async def FunctionPrecreate(request, answer):
    answer.function_id = request.existing_function_id or fresh("fu")
    describe(answer.handle_metadata, request.function_name, request.function_type)


async def FunctionCreate(request, answer):
    answer.function_id = request.existing_function_id or fresh("fu")
    describe(answer.handle_metadata, request.function.function_name, request.function.function_type)
    if "function_data" in answer.DESCRIPTOR.fields_by_name:
        answer.function_data.CopyFrom(request.function_data)
        if not answer.function_data.ranked_functions:
            answer.function_data.ranked_functions.add(rank=0).function.CopyFrom(request.function)


async def AppClientDisconnect(request, answer):
    ended.set()


async def AppGetLogs(request, answer):
    try:
        await asyncio.wait_for(ended.wait(), 50)
        answer.app_done = True
        answer.entry_id = "1-0"
    except asyncio.TimeoutError:
        pass


async def FunctionMap(request, answer):
    answer.function_call_id = fresh("fc")
    if "max_inputs_outstanding" in answer.DESCRIPTOR.fields_by_name:
        answer.max_inputs_outstanding = OUTSTANDING
    call = calls[answer.function_call_id] = Call()
    call.put(request.pipelined_inputs, answer.pipelined_inputs)


async def FunctionPutInputs(request, answer):
    calls[request.function_call_id].put(request.inputs, answer.inputs)


async def FunctionGetOutputs(request, answer):
    call = calls[request.function_call_id]
    cursor = int(request.last_entry_id.split("-")[0] or 0)
    deadline = time.monotonic() + request.timeout
    while cursor >= len(call.outputs):
        call.grown.clear()
        try:
            await asyncio.wait_for(call.grown.wait(), deadline - time.monotonic())
        except asyncio.TimeoutError:
            break
    page = call.outputs[cursor : cursor + (request.max_values or PAGE)]
    answer.outputs.extend(page)
    answer.idxs.extend(output.idx for output in page)
    answer.last_entry_id = f"{cursor + len(page)}-0"


async def BlobCreate(request, answer):
    url = f"{blob_address}/{fresh('bl')}"
    if "upload_urls" in answer.DESCRIPTOR.fields_by_name:
        answer.blob_ids.append(url)
        answer.upload_urls.items.append(url)
    else:
        answer.blob_id = url
        answer.upload_url = url


async def put_blob(request):
    body = await request.read()
    return web.Response(headers={"ETag": hashlib.md5(body).hexdigest()})


def handler(name, method):
    answers = globals().get(name)

    async def handle(stream):
        request = await stream.recv_message()
        answer = method.reply_type()
        if answers is not None:
            await answers(request, answer)
        await stream.send_message(answer)

    return method._replace(func=handle)


class Calls:
    """The service with all its methods; those that are not above answer with an empty message."""

    def __mapping__(self):
        base = api_grpc.ModalClientBase
        methods = {name: None for name in base.__abstractmethods__}
        mapping = type("All", (base,), methods)().__mapping__()
        return {path: handler(path.rsplit("/", 1)[1], method) for path, method in mapping.items()}


async def serve():
    global blob_address
    application = web.Application(client_max_size=1 << 30)
    application.router.add_put("/{name}", put_blob)
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    blob_address = "http://127.0.0.1:%d" % runner.addresses[0][1]
    window = 64 << 20
    configuration = grpclib.config.Configuration(http2_connection_window_size=window, http2_stream_window_size=window)
    server = grpclib.server.Server([Calls()], config=configuration)
    await server.start("127.0.0.1", 0)
    print(server._server.sockets[0].getsockname()[1], flush=True)
    await server.wait_closed()


asyncio.run(serve())
