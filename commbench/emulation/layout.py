"""Which hosts, racks and links an emulated cluster has."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from commbench.errors import UserError
from commbench.transport.link import Rate

# The kernel's tables and one machine's memory hold several hundred; addresses end here.
MOST_HOSTS = 1000
# Of an Ethernet frame, and of the IPv4 and TCP headers with the timestamps that Linux sends.
_FRAME_BYTES, _HEADER_BYTES = 14, 52
PLACES = ("block", "round-robin")


@dataclass(frozen=True)
class Layout:
    """Hosts with one link each, in racks, whose uplinks may be narrower than those together.

    Attributes:
        hosts: how many; rank r runs on host r.
        rate: what the link of a host carries each way, headers included.
        racks: how many switches the hosts are dealt to; one has no uplinks.
        oversubscription: what the links of a rack's hosts carry together, over what its uplink
            does.
        place: "block" fills one rack after another, "round-robin" deals hosts to racks like cards.
        mtu: the largest packet, in bytes.
        burst: what a link may send at once after a pause, in bytes: so much costs no time.
    """

    hosts: int
    rate: Rate
    racks: int = 1
    oversubscription: float = 1.0
    place: str = "block"
    mtu: int = 9000
    burst: int = 16384

    def __post_init__(self) -> None:
        """Check it.

        Raises:
            UserError: hosts that cannot be had, or dealt to the racks.
        """
        if not 1 <= self.hosts <= MOST_HOSTS:
            raise UserError(f"--hosts {self.hosts}: give 1 to {MOST_HOSTS}")
        if not 1 <= self.racks <= self.hosts or self.hosts % self.racks:
            raise UserError(
                f"--racks {self.racks}: {self.hosts} hosts cannot be dealt to so many racks "
                "in equal parts; give a divisor of --hosts"
            )
        if self.oversubscription < 1:
            raise UserError(f"--oversubscription {self.oversubscription:g}: give 1 or more")
        if self.oversubscription > 1 and self.racks == 1:
            raise UserError("--oversubscription narrows the uplinks of racks: give --racks too")
        if self.place not in PLACES:
            raise UserError(f"--place {self.place}: choose from {', '.join(PLACES)}")
        if self.burst < self.mtu + _FRAME_BYTES:
            raise UserError(
                f"--burst {self.burst}: a packet of {self.mtu} bytes (--mtu) never passes; "
                f"give {self.mtu + _FRAME_BYTES} or more"
            )

    def rack(self, host: int) -> int:
        """The rack of a host."""
        if self.place == "round-robin":
            return host % self.racks
        return host // (self.hosts // self.racks)

    def uplink(self) -> Rate:
        """What the uplink of a rack carries each way."""
        return Rate(round(int(self.rate) * (self.hosts // self.racks) / self.oversubscription))

    def net(self, rate: Rate) -> float:
        """Bytes of messages that a link carries in a second, when its packets are full."""
        return rate.bytes_per_s * (self.mtu - _HEADER_BYTES) / (self.mtu + _FRAME_BYTES)

    def describe(self) -> str:
        """One phrase for people and run files."""
        racks = ""
        if self.racks > 1:
            racks = (
                f" in {self.racks} racks, {self.place}, oversubscribed {self.oversubscription:g}:1"
            )
        return f"{self.hosts} hosts at {self.rate}{racks}"

    def to_json(self) -> str:
        """For another process; `from_json` reads it."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Layout:
        """What `to_json` gave."""
        values = json.loads(text)
        return cls(**{**values, "rate": Rate(values["rate"])})


def host_name(host: int) -> str:
    """The name of a host, and of its network namespace."""
    return f"h{host}"


def address(host: int) -> str:
    """Its IPv4 address, in 10.77.0.0/16."""
    return f"10.77.{host // 250}.{host % 250 + 1}"


def hardware_address(host: int) -> str:
    """Its Ethernet address, locally administered."""
    return f"02:77:00:00:{host // 256:02x}:{host % 256:02x}"
