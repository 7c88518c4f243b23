import torch
from rich.console import Console
from toys import ToyNetwork, toy_tasks

from mtl_core.profile import Cost, profile_network, profile_table
from mtl_core.profile.show import parts_table, profile_words


def printed(thing) -> str:
    console = Console(width=200)
    with console.capture() as capture:
        console.print(thing)
    return capture.get()


def test_tables_name_every_call_and_part():
    profile = profile_network(ToyNetwork(toy_tasks()), torch.rand(2, 6), repeats=1)
    text = printed(profile_table(profile))
    for words in ("ToyNetwork", "size", "kind", "marks", "one call", "a call a task", "CPU ms"):
        assert words in text
    where = printed(parts_table(profile))
    assert "trunk" in where
    assert "decoders.marks" in where
    assert "CPU ms" not in printed(
        profile_table(profile_network(ToyNetwork(toy_tasks()), torch.rand(2, 6)))
    )


def test_words_tell_savings_and_strangers():
    profile = profile_network(ToyNetwork(toy_tasks()), torch.rand(2, 6))
    words = "\n".join(profile_words(profile))
    assert "kind alone: 9% less than all tasks." in words
    assert "No call for one task touches" in words
    strange = Cost(**{**profile.single["kind"].__dict__, "foreign": ("decoders.size.weight",)})
    single = {**profile.single, "kind": strange}
    told = "\n".join(profile_words(type(profile)(**{**profile.__dict__, "single": single})))
    assert "kind alone also computes with 1 of other tasks: decoders.size.weight" in told
    assert "No call" not in told
