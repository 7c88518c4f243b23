"""Profiles for people: tables, and what they come to in words."""

from collections.abc import Sequence

from rich.table import Table

from mtl_core.profile.record import Cost, Profile

_MIB = 2**20


def profile_table(profile: Profile) -> Table:
    """A row a call: arithmetic, parameters, memory, and time where it was measured.

    Args:
        profile: of any network.
    """
    unit, letter = _unit([cost.macs for _, _, cost in profile.calls()])
    timed = profile.together.seconds is not None
    shapes = ", ".join("×".join(map(str, shape)) for shape in profile.inputs.values())
    table = Table(
        title=f"{profile.network}, {len(profile.tasks)} task(s), inputs {shapes}",
        caption=f"{profile.device}, {profile.threads} thread(s); MACs a sample, memory and time a "
        f"batch of {profile.batch}",
        title_justify="left",
        caption_justify="left",
    )
    for name in ("", "call"):
        table.add_column(name, no_wrap=True)
    heads = [f"{letter}MACs", "of all tasks", "parameters", "weights MiB", "peak MiB"]
    if timed:
        heads += ["ms", "CPU ms"] if profile.together.cpu_seconds is not None else ["ms"]
        heads.append("of all tasks")
    for head in heads:
        table.add_column(head, justify="right", no_wrap=True)
    last = ""
    for group, name, cost in profile.calls():
        if last and group != last:
            table.add_section()
        cells = [
            f"{cost.macs / unit:.2f}",
            _share(cost.macs, profile.macs),
            f"{cost.parameters:,}",
            f"{cost.weight_bytes / _MIB:.1f}",
            f"{cost.peak_bytes / _MIB:.1f}",
        ]
        if timed:
            cells += _times(cost, profile.together.cpu_seconds is not None)
        table.add_row(group if group != last else "", name, *cells)
        last = group
    return table


def parts_table(profile: Profile) -> Table:
    """Where the arithmetic of a call is: a row a part of the network, a column a call."""
    calls = {**profile.single, "all tasks": profile.together}
    unit, letter = _unit([cost.macs for cost in calls.values()])
    table = Table(title=f"Where: {letter}MACs a sample by part", title_justify="left")
    table.add_column("part", no_wrap=True)
    for name in calls:
        table.add_column(name, justify="right", no_wrap=True)
    parts = dict.fromkeys(
        part for c in (profile.together, *profile.single.values()) for part in c.parts
    )
    for part in parts:
        held = [cost.parts.get(part) for cost in calls.values()]
        table.add_row(part, *["" if macs is None else f"{macs / unit:.3f}" for macs in held])
    return table


def profile_words(profile: Profile) -> list[str]:
    """What calls for one task save, and whether they keep to their own path."""
    lines = []
    for task in (*profile.tasks, None):
        told = [
            f"as much as {name}"
            if abs(value) < 0.005
            else f"{abs(value):.0%} {'less' if value > 0 else 'more'} than {name}"
            for name, value in profile.saving(task).items()
        ]
        if told and (task is not None or len(profile.tasks) > 1):
            lines.append(f"{'all tasks' if task is None else f'{task} alone'}: {', '.join(told)}.")
    strangers = {task: cost.foreign for task, cost in profile.single.items() if cost.foreign}
    for task, names in strangers.items():
        shown = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
        lines.append(f"{task} alone also computes with {len(names)} of other tasks: {shown}")
    if len(profile.tasks) > 1 and not strangers:
        lines.append("No call for one task touches a parameter that serves only other tasks.")
    idle = profile.parameters - profile.together.parameters
    if idle:
        lines.append(f"{idle:,} of {profile.parameters:,} parameters take no part in them.")
    return lines


def _times(cost: Cost, work: bool) -> list[str]:
    values = [cost.seconds, cost.cpu_seconds] if work else [cost.seconds]
    shown = ["" if value is None else f"{1e3 * value:.1f}" for value in values]
    return [*shown, "" if cost.time_ratio is None else f"{cost.time_ratio:.0%}"]


def _share(value: float, whole: float) -> str:
    return f"{value / whole:.0%}" if whole else ""


def _unit(values: Sequence[float]) -> tuple[float, str]:
    """Power of a thousand in which the largest value reads well, with its letter."""
    largest = max(values, default=0.0)
    for power, letter in ((1e9, "G "), (1e6, "M "), (1e3, "k ")):
        if largest >= power / 10:
            return power, letter
    return 1.0, ""
