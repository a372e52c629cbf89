"""Writes the descriptors of the installed client package, with all that they import, to stdout.

The output is a serialized google.protobuf.FileDescriptorSet. Run it with the interpreter of the environment that has the
package.
"""

import sys

from google.protobuf import descriptor_pb2
from modal_proto import api_pb2


def add(file, files, seen):
    """Appends a file after the files that it imports."""
    if file.name in seen:
        return
    seen.add(file.name)
    for dependency in file.dependencies:
        add(dependency, files, seen)
    file.CopyToProto(files.file.add())


def main():
    files = descriptor_pb2.FileDescriptorSet()
    add(api_pb2.DESCRIPTOR, files, set())
    sys.stdout.buffer.write(files.SerializeToString())


main()
