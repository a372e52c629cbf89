"""Where a Volume can be mounted: at a path of the image, at a new one, twice, read-only, one directory of it."""

import errno
import json
import os

import modal

NAME = os.environ.get("VOLUME", "volume-places")
volume = modal.Volume.from_name(NAME, create_if_missing=True)
again = modal.Volume.from_name(NAME, create_if_missing=True)  # the client refuses one handle at two places
app = modal.App("volume-places", image=modal.Image.debian_slim(python_version="3.11"))


def attempt(path, text):
    try:
        with open(path, "w") as file:
            file.write(text)
        return "written"
    except OSError as error:
        return errno.errorcode[error.errno]


@app.function(volumes={"/etc/apt": volume})
def over_the_image():
    seen = sorted(os.listdir("/etc/apt"))
    with open("/etc/apt/mine", "w") as file:
        file.write("mine")
    volume.commit()
    return seen


@app.function(volumes={"/new/and/deep": volume})
def at_a_new_path():
    return sorted(os.listdir("/new/and/deep"))


@app.function()
def without_it():
    return {"image": os.path.exists("/etc/apt/sources.list.d"), "mine": os.path.exists("/etc/apt/mine")}


if hasattr(modal.Volume, "with_mount_options"):

    @app.function(volumes={"/vol": volume.with_mount_options(read_only=True)})
    def only_reading():
        return {"read": sorted(os.listdir("/vol")), "write": attempt("/vol/x", "x")}

    part = volume.with_mount_options(sub_path="/part/inner")

    @app.function(volumes={"/vol": part})
    def one_directory():
        written = attempt("/vol/in part", "x")
        part.commit()
        return {"write": written, "read": sorted(os.listdir("/vol"))}

    @app.local_entrypoint()
    def with_options():
        over_the_image.remote()
        results = {"only reading": only_reading.remote(), "one directory": one_directory.remote()}
        print("RESULT " + json.dumps({**results, "all": at_a_new_path.remote()}))

else:

    @app.function(volumes={"/here": volume, "/there": again})
    def twice():
        written = attempt("/here/both", "x")
        return {"write": written, "there": sorted(os.listdir("/there"))}

    @app.local_entrypoint()
    def at_two_places():
        print("RESULT " + json.dumps(twice.remote()))


second = modal.Volume.from_name(f"{NAME}-second", create_if_missing=True)


@app.function(volumes={"/outer": volume, "/outer/within": second})
def one_in_the_other():
    written = [attempt("/outer/x", "of the outer"), attempt("/outer/within/y", "of the inner")]
    volume.commit()
    second.commit()
    second.reload()
    volume.reload()
    return {"write": written, "outer": sorted(os.listdir("/outer")), "inner": os.listdir("/outer/within")}


@app.function(volumes={"/first": volume, "/second": second})
def side_by_side():
    return {"first": sorted(os.listdir("/first")), "second": os.listdir("/second")}


@app.local_entrypoint()
def two_volumes():
    results = {"nested": one_in_the_other.remote(), "apart": side_by_side.remote()}
    print("RESULT " + json.dumps(results))


@app.local_entrypoint()
def main():
    results = {"over": over_the_image.remote(), "new": at_a_new_path.remote(), "without": without_it.remote()}
    print("RESULT " + json.dumps(results))
