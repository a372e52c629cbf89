"""Works on the files of one Volume from the outside, as it is told in JSON: a list of steps, each a list of a verb and
what it is about. Reports what came of each step; a failure is reported as such and ends nothing."""

import hashlib
import io
import json
import os
import sys
import tempfile

import modal


def open_volume(name, api):
    if api == 1:
        return modal.Volume.from_name(name, create_if_missing=True)
    return modal.Volume.from_name(name, create_if_missing=True, version=api)


def entry(found):
    return {"path": found.path, "type": found.type.name, "size": found.size, "mtime": found.mtime}


def list_directory(volume, path, recursive=False):
    return [entry(found) for found in volume.listdir(path, recursive=recursive)]


def iterate(volume, path):
    return [entry(found) for found in volume.iterdir(path)]


def count(volume, path, recursive=True):
    names = hashlib.sha256()
    number = 0
    for found in volume.iterdir(path, recursive=recursive):
        names.update(found.path.encode() + b"\0")
        number += 1
    return {"number": number, "names": names.hexdigest()}


def digest(chunks):
    hash, size = hashlib.sha256(), 0
    for chunk in chunks:
        hash.update(chunk)
        size += len(chunk)
    return {"sha256": hash.hexdigest(), "size": size}


def read(volume, path):
    return digest(volume.read_file(path))


def read_into(volume, path):
    with tempfile.TemporaryFile() as file:
        said = volume.read_file_into_fileobj(path, file)
        # Not all versions leave the file where the content ends.
        file.seek(0)
        found = digest(iter(lambda: file.read(1 << 20), b""))
    assert said == found["size"], (said, found)
    return found


def put(volume, local, remote, force=False, mode=None):
    with volume.batch_upload(force=force) as batch:
        batch.put_file(local, remote, mode=mode)


def put_text(volume, texts, force=False):
    """Several files from memory in one batch."""
    with volume.batch_upload(force=force) as batch:
        for remote, text in texts.items():
            batch.put_file(io.BytesIO(text.encode()), remote)


def put_open_file(volume, local, remote):
    with open(local, "rb") as file:
        file.read(3)  # an upload begins at the start, wherever the file is
        with volume.batch_upload() as batch:
            batch.put_file(file, remote)


def put_directory(volume, local, remote, force=False, recursive=True):
    with volume.batch_upload(force=force) as batch:
        batch.put_directory(local, remote, recursive=recursive)


def remove(volume, path, recursive=False):
    volume.remove_file(path, recursive=recursive)


def copy(volume, sources, target, recursive=None):
    if recursive is None:
        volume.copy_files(sources, target)
    else:
        volume.copy_files(sources, target, recursive=recursive)


def pages(volume, path, most=None):
    """The lengths of the parts in which a listing comes."""
    from modal._utils.async_utils import synchronizer
    from modal.client import _Client
    from modal_proto import api_pb2

    @synchronizer.create_blocking
    async def lengths():
        client = await _Client.from_env()
        request = api_pb2.VolumeListFiles2Request(
            volume_id=volume.object_id, path=path, recursive=True, max_entries=most
        )
        return [len(page.entries) async for page in client._stub.VolumeListFiles2.unary_stream(request)]

    volume.hydrate()
    return lengths()


def remove_by_key(volume, path, key):
    """Removes a file by a request with an idempotency key of its own."""
    from modal._utils.async_utils import synchronizer
    from modal.client import _Client
    from modal_proto import api_pb2

    @synchronizer.create_blocking
    async def request():
        client = await _Client.from_env()
        request = api_pb2.VolumeRemoveFile2Request(volume_id=volume.object_id, path=path)
        await client._stub.VolumeRemoveFile2(request, retry=None, metadata=[("x-idempotency-key", key)])

    volume.hydrate()
    request()


def commit(volume):
    volume.commit()


def reload(volume):
    volume.reload()


VERBS = {
    "list": list_directory, "iterate": iterate, "count": count, "read": read, "read_into": read_into, "put": put,
    "put_text": put_text, "put_open_file": put_open_file, "put_directory": put_directory, "remove": remove,
    "copy": copy, "pages": pages, "remove_by_key": remove_by_key, "commit": commit, "reload": reload,
}


def carry_out(volume, verb, *about):
    try:
        return VERBS[verb](volume, *about)
    except Exception as error:
        kinds = [kind.__name__ for kind in type(error).__mro__]
        status = getattr(getattr(error, "status", None), "name", "")
        return {"error": kinds[0], "kinds": kinds, "status": status, "message": str(error)}


name, api, steps = sys.argv[1], int(sys.argv[2]), json.loads(sys.argv[3])
os.chdir(tempfile.gettempdir())
volume = open_volume(name, api)
print("RESULT " + json.dumps({"steps": [carry_out(volume, *step) for step in steps]}))
