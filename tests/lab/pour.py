# SPDX-License-Identifier: BSD-2-Clause
"""pour.py PATH: what comes on standard input goes to the Unix socket PATH, as it comes. A command for QEMU to migrate to."""
import os
import socket
import sys

with socket.socket(socket.AF_UNIX) as to:
    to.connect(sys.argv[1])
    while data := os.read(0, 1 << 16):
        to.sendall(data)
