"""What devices offer, as far as anybody told us."""

from dataclasses import dataclass
from pathlib import Path

import yaml

from mtl_core.errors import UnknownNameError

TABLE = Path(__file__).with_name("devices.yaml")


@dataclass(frozen=True)
class Device:
    """Resources of a device; all numbers unverified by us but those in `confirmed`.

    Args:
        name: key of the table.
        part: of the vendor.
        dsp: multipliers.
        bram36: blocks of 36 kbit.
        uram: blocks of 288 kbit.
        lut: look-up tables.
        ddr_gb_s: theoretical peak of the memory, 10^9 bytes a second.
        on_chip_mbit: all memory on the chip.
        dsp_wide: bits of a multiplier's wider input.
        dsp_narrow: of its narrower one.
        confirmed: fields that a second source gives too.
    """

    name: str
    part: str
    dsp: int
    bram36: int
    uram: int
    lut: int
    ddr_gb_s: float
    on_chip_mbit: float
    dsp_wide: int
    dsp_narrow: int
    confirmed: tuple[str, ...] = ()


def devices() -> dict[str, Device]:
    """All of ``devices.yaml``."""
    table = yaml.safe_load(TABLE.read_text(encoding="utf-8"))
    return {
        name: Device(name, **{**entry, "confirmed": tuple(entry["confirmed"])})
        for name, entry in table.items()
    }


def device(name: str) -> Device:
    """One by its name.

    Raises:
        UnknownNameError: the table has none of that name.
    """
    known = devices()
    if name not in known:
        raise UnknownNameError("device", name, known)
    return known[name]
