"""Functions that share files through a network file system, and a client that puts and gets them."""

import json
import os

import modal

PATH = "/shared/files"

image = modal.Image.debian_slim(python_version="3.11")
app = modal.App("network-files", image=image)
files = modal.NetworkFileSystem.from_name(os.environ.get("FILES_NAME", "shared-files"), create_if_missing=True)


@app.function(network_file_systems={PATH: files})
def write(name, text):
    path = os.path.join(PATH, name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "a") as file:
        file.write(text)
    # Ends without a word about it: there is nothing to commit.
    return {"owner": os.stat(path).st_uid, "me": os.getuid()}


@app.function(network_file_systems={PATH: files})
def read(name):
    with open(os.path.join(PATH, name)) as file:
        return file.read()


@app.local_entrypoint()
def main():
    owners = write.remote("from/container.txt", "one ")
    write.remote("from/container.txt", "two")
    seen = read.remote("from/container.txt")
    listed = sorted(entry.path for entry in files.listdir("/from"))
    outside = b"".join(files.read_file("from/container.txt")).decode()
    with open(__file__, "rb") as file:
        files.write_file("uploaded/deep/program.py", file)
    inside = read.remote("uploaded/deep/program.py")
    files.remove_file("uploaded", recursive=True)
    left = [entry.path for entry in files.listdir("**")]
    print("RESULT " + json.dumps({
        "owners": owners, "seen": seen, "listed": listed, "outside": outside,
        "inside": inside == open(__file__).read(), "left": left,
    }))
