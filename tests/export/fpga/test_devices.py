import pytest

from export.fpga.devices import device, devices
from mtl_core.errors import UnknownNameError


def test_devices_and_what_is_confirmed_of_them():
    known = devices()
    assert list(known) == ["zcu104", "zcu102", "kv260", "pynq-z2"]
    assert known["kv260"].confirmed == ("dsp", "bram36", "uram")
    assert not known["zcu104"].confirmed
    assert (known["zcu102"].dsp, known["zcu102"].bram36, known["zcu102"].uram) == (2520, 912, 0)


def test_unknown_device_names_the_nearest():
    with pytest.raises(UnknownNameError, match="zcu104"):
        device("zcu105")
