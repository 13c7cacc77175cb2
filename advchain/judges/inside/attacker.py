"""The canary's attacker: try to break out and report what worked. Arguments: limits, JSON of the planted bait."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import socket
import sys
from collections.abc import Callable

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))  # noqa: PTH100, PTH120

import limits  # type: ignore[import-not-found]

bait = json.loads(sys.argv[2])


def read(path: str) -> bytes:
    """Return a file's bytes."""
    with open(path, "rb") as file:
        return file.read()


def connect_tcp() -> bool:
    """Reach a service on the host's loopback."""
    socket.create_connection(("127.0.0.1", bait["port"]), timeout=2).close()
    return True


def connect_unix() -> bool:
    """Reach a service behind a unix socket."""
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(bait["folder"] + "/socket")
    return True


def read_secret() -> bool:
    """Read a world-readable file of the host."""
    return bait["secret"].encode() in read(bait["folder"] + "/secret")


def read_environment() -> bool:
    """Find the secret in any environment: our own, pid 1's, the judge's."""
    places = ["/proc/self/environ", "/proc/1/environ", f"/proc/{bait['pid']}/environ"]
    texts = [repr(dict(os.environ)).encode()]
    for place in places:
        with contextlib.suppress(OSError):
            texts.append(read(place))
    return any(bait["secret"].encode() in text for text in texts)


def write_host() -> bool:
    """Write into a world-writable folder of the host."""
    with open(bait["folder"] + "/written", "w") as file:
        file.write("x")
    return True


def make_namespace() -> bool:
    """Make a user namespace, the door to most kernel bugs (0x10000000 = CLONE_NEWUSER)."""
    return bool(ctypes.CDLL(None).unshare(0x10000000) == 0)


def fork_many() -> bool:
    """Fork more than any process limit of ours allows."""
    children = []
    try:
        for _ in range(64):
            child = os.fork()
            if child == 0:
                os.close(waiting[1])
                os.read(waiting[0], 1)
                os._exit(0)
            children.append(child)
        return True
    finally:
        os.close(waiting[1])
        for child in children:
            os.waitpid(child, 0)


waiting = os.pipe()
ATTACKS: dict[str, Callable[[], bool]] = {
    "connect to loopback": connect_tcp,
    "connect to a unix socket": connect_unix,
    "read a planted secret": read_secret,
    "read the judge's environment": read_environment,
    "write a host folder": write_host,
    "fork 64 processes": fork_many,
    "make a user namespace": make_namespace,
}


def works(attack: Callable[[], bool]) -> bool:
    """Return whether an attack succeeded; being stopped is an OSError."""
    try:
        return attack()
    except OSError:
        return False


if __name__ == "__main__":
    if sys.argv[1] != "null":
        limits.apply()
    sys.stdout.write(json.dumps({name: works(attack) for name, attack in ATTACKS.items()}))
