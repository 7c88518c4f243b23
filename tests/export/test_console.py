"""Tables on the terminal."""

import sys

from export.console import print_table


def test_tables_are_plain_where_nobody_watches_and_rich_where_it_is_there(capsys, monkeypatch):
    print_table("T", ["name", "x"], [("a", 1.5), ("bb", 10)])
    assert capsys.readouterr().out == "T\n  name    x\n  a     1.5\n  bb     10\n\n"
    print_table("Empty", ["name"], [])
    assert capsys.readouterr().out == "Empty\n  name\n\n"
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    print_table("T", ["name", "x"], [("[b]a", 1.5)])
    drawn = capsys.readouterr().out
    assert "[b]a" in drawn
    assert "─" in drawn or "━" in drawn
    monkeypatch.setitem(sys.modules, "rich.console", None)
    print_table("T", ["name"], [("a",)])
    assert capsys.readouterr().out == "T\n  name\n  a\n\n"
