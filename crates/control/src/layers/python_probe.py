"""Writes what this Python is, so that packages for it can be chosen."""

import os
import platform
import sys

os.makedirs("/homeport-probe", exist_ok=True)
with open("/homeport-probe/python", "w") as out:
    print("%d.%d" % sys.version_info[:2], platform.libc_ver()[0] or "musl", platform.machine(), file=out)
