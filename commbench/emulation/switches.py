"""Builds the cluster with `ip` and `tc`: a namespace a host, a bridge a rack, every link shaped.

For processes inside the namespaces of `machine` only: names in /run/netns are theirs alone there.
"""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from commbench.emulation.layout import Layout, address, hardware_address, host_name
from commbench.errors import UserError
from commbench.transport.link import Rate

# The bridges, and the other ends of the hosts' links.
SWITCHES = "switches"
NAMES = Path("/run/netns")
# A queue longer than any that TCP's buffers can fill: links delay, and never drop.
_QUEUE_BYTES = 8 << 20
_CLONE_NEWNET = 0x40000000
# With megabytes of buffer in the kernel, sends of several messages overlap, and links that carry
# one message at a time in the model carry two. Links here are never congested by strangers, so an
# idle connection need not begin anew with a small window.
_BUFFERS = {
    "ipv4/tcp_wmem": "4096 65536 131072",
    "ipv4/tcp_rmem": "4096 131072 524288",
    "ipv4/tcp_slow_start_after_idle": "0",
    "ipv4/tcp_no_metrics_save": "1",
}
_NO_IPV6 = {"ipv6/conf/all/disable_ipv6": "1", "ipv6/conf/default/disable_ipv6": "1"}


def build(layout: Layout) -> None:
    """Make all hosts and links.

    Raises:
        UserError: the kernel refuses; says what.
    """
    hosts = range(layout.hosts)
    _run(["ip", "netns", "attach", SWITCHES, str(os.getpid())])
    _set(_NO_IPV6)
    _batch("ip", ["link set lo up", *(f"netns add {host_name(host)}" for host in hosts)])
    for host in hosts:
        with inside(host_name(host)):
            _set({**_NO_IPV6, **_BUFFERS})
    _batch("ip", _bridges(layout))
    _batch("tc", _shapes(layout))
    for host in hosts:
        _batch("ip", _host_links(layout, host), host_name(host))
        shape = _shape("eth0", layout.rate, layout.burst)
        _batch("tc", [shape], host_name(host))


def _bridges(layout: Layout) -> Iterator[str]:
    for rack in range(layout.racks):
        yield f"link add rack{rack} type bridge"
        yield f"link set rack{rack} up"
    for host in range(layout.hosts):
        yield (
            f"link add p{host} mtu {layout.mtu} type veth peer name eth0 mtu {layout.mtu} "
            f"address {hardware_address(host)} netns {host_name(host)}"
        )
        yield f"link set p{host} master rack{layout.rack(host)} up"
    # Where the launcher can be reached.
    yield f"addr add {_switch_address()}/16 dev rack0"
    if layout.racks > 1:
        yield "link add core type bridge"
        yield "link set core up"
        for rack in range(layout.racks):
            yield f"link add u{rack} mtu {layout.mtu} type veth peer name d{rack} mtu {layout.mtu}"
            yield f"link set u{rack} master rack{rack} up"
            yield f"link set d{rack} master core up"


def _shapes(layout: Layout) -> Iterator[str]:
    for host in range(layout.hosts):
        yield _shape(f"p{host}", layout.rate, layout.burst)
    if layout.racks > 1:
        for rack in range(layout.racks):
            yield _shape(f"u{rack}", layout.uplink(), layout.burst)
            yield _shape(f"d{rack}", layout.uplink(), layout.burst)


def _shape(device: str, rate: Rate, burst: int) -> str:
    return f"qdisc add dev {device} root tbf rate {int(rate)}bit burst {burst} limit {_QUEUE_BYTES}"


def _host_links(layout: Layout, host: int) -> Iterator[str]:
    yield "link set lo up"
    yield f"addr add {address(host)}/16 dev eth0"
    yield "link set eth0 up"
    for other in range(layout.hosts):
        if other != host:
            yield _neighbour(address(other), hardware_address(other))


def _neighbour(where: str, hardware: str) -> str:
    return f"neigh replace {where} lladdr {hardware} dev eth0 nud permanent"


def _switch_address() -> str:
    return "10.77.255.254"


def carried_bytes(layout: Layout) -> list[int]:
    """What the shaped link towards each host has carried so far, headers included."""
    told = _run(["nsenter", f"--net={NAMES / SWITCHES}", "tc", "-s", "-j", "qdisc", "show"])
    counts = {one["dev"]: int(one["bytes"]) for one in json.loads(told) if one["kind"] == "tbf"}
    return [counts[f"p{host}"] for host in range(layout.hosts)]


def hosts_file(layout: Layout) -> str:
    """The names of all hosts, as in /etc/hosts."""
    lines = [f"127.0.0.1 localhost {SWITCHES}"]
    lines += [f"{address(host)} {host_name(host)}" for host in range(layout.hosts)]
    return "\n".join(lines) + "\n"


@contextmanager
def inside(name: str) -> Iterator[None]:
    """Let this thread be in a network namespace for the block."""
    own, other = (os.open(path, os.O_RDONLY) for path in ("/proc/thread-self/ns/net", NAMES / name))
    try:
        _enter(other)
        yield
    finally:
        _enter(own)
        os.close(own)
        os.close(other)


def _enter(handle: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(handle, _CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "cannot enter a network namespace")


def _set(values: dict[str, str]) -> None:
    """Set what the kernel lets this network namespace set; /proc shows the reader's own."""
    for name, value in values.items():
        path = Path("/proc/sys/net", name)
        if path.exists():  # a kernel without IPv6
            path.write_text(value)


def _batch(tool: str, lines: Iterable[str], namespace: str = "") -> None:
    where = ["-n", namespace] if namespace else []
    _run([tool, *where, "-batch", "-"], "\n".join([*lines, ""]))


def _run(command: list[str], text: str = "") -> str:
    done = subprocess.run(
        command, input=text, capture_output=True, text=True, check=False, timeout=120
    )
    if done.returncode:
        told = " ".join(done.stderr.split())[:300]
        raise UserError(f"cannot build the emulated network: {' '.join(command)}: {told}")
    return done.stdout
