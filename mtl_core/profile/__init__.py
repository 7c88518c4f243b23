"""What a network costs: arithmetic, parameters, memory and time, by task and for all tasks."""

from mtl_core.profile.clock import Timing, clock
from mtl_core.profile.measure import profile_network
from mtl_core.profile.record import Cost, Profile
from mtl_core.profile.show import profile_table
from mtl_core.profile.trace import Trace

__all__ = ["Cost", "Profile", "Timing", "Trace", "clock", "profile_network", "profile_table"]
