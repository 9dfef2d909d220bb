"""Generates `dsl/tables.py` from `dsl/grammar.lark`: `python -m tdsl.dsl.tablegen`.

Lark computes the LALR(1) tables here, once. Importing Lark and building them again at each start would take half of the
time that `tdsl check` has; what the parser reads is a plain module.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from lark import Lark
from lark.grammar import Rule, Symbol, Terminal
from lark.lexer import PatternStr, TerminalDef
from lark.parsers.lalr_analysis import IntParseTable, Shift

HERE = Path(__file__).parent
STARTS = ["start", "option"]
HEADER = '''"""LALR(1) tables of dsl/grammar.lark, made by `python -m tdsl.dsl.tablegen`. Change that, not this.

`RULES`: symbol made, number of symbols taken, action, and which of them the action is given (`~i` splices a list).
`ACTIONS`: for each state, a terminal's successor state, or `~rule` to reduce by. `GOTO`: the same for symbols made.
"""

# ruff: noqa
# fmt: off
from __future__ import annotations
'''


def main() -> None:
    (HERE / "tables.py").write_text(generate(), encoding="utf-8")


def generate() -> str:
    """The text of `tables.py`."""
    lark = Lark(
        (HERE / "grammar.lark").read_text(encoding="utf-8"), parser="lalr", start=STARTS, maybe_placeholders=False
    )
    table: IntParseTable = lark.parser.parser._parse_table
    rules = _ordered(lark.rules)
    states = _renumbered(table)
    kinds = {terminal.name: _kind(terminal) for terminal in lark.terminals} | {"$END": "$END"}
    lines = [
        HEADER,
        "RULES: tuple[tuple[str, int, str, tuple[int, ...]], ...] = (",
        *(f"    {_rule(rule)!r}," for rule in rules),
        ")\n",
        "ACTIONS: tuple[dict[str, int], ...] = (",
        *(f"    {row!r}," for row in _actions(table, states, rules, kinds)),
        ")\n",
        "GOTO: tuple[dict[str, int], ...] = (",
        *(f"    {row!r}," for row in _gotos(table, states, kinds)),
        ")\n",
        f"START = {_numbers(table.start_states, states)!r}",
        f"END = {_numbers(table.end_states, states)!r}",
    ]
    return "\n".join(lines) + "\n"


def _numbers(named: dict[str, int], states: dict[int, int]) -> dict[str, int]:
    return {name: states[named[name]] for name in STARTS}


def _ordered(rules: list[Rule]) -> list[Rule]:
    return sorted(rules, key=str)


def _renumbered(table: IntParseTable) -> dict[int, int]:
    """States in the order in which a walk by sorted symbols first meets them: the same whatever the hash seed."""
    order: dict[int, int] = {}
    waiting = [table.start_states[name] for name in reversed(STARTS)]
    while waiting:
        state = waiting.pop()
        if state in order:
            continue
        order[state] = len(order)
        row = table.states[state]
        waiting += [row[name][1] for name in sorted(row, reverse=True) if row[name][0] is Shift]
    return order


def _kind(terminal: TerminalDef) -> str:
    """How the lexer calls a terminal: by its text where it has but one."""
    if isinstance(terminal.pattern, PatternStr):
        return terminal.pattern.value
    return terminal.name.lstrip("_")


def _rule(rule: Rule) -> tuple[str, int, str, tuple[int, ...]]:
    return str(rule.origin.name), len(rule.expansion), _action(rule), _kept(rule)


def _action(rule: Rule) -> str:
    """The builder's method; none where the values are handed on: to be spliced, or the only one as it is."""
    if rule.alias:
        return str(rule.alias)
    name = str(rule.origin.name)
    if name.startswith("_"):
        return ""
    return "" if rule.options.expand1 and len(_kept(rule)) == 1 else name


def _kept(rule: Rule) -> tuple[int, ...]:
    kept = [i for i, symbol in enumerate(rule.expansion) if _is_kept(symbol, rule)]
    return tuple(~i if rule.expansion[i].name.startswith("_") and not rule.expansion[i].is_term else i for i in kept)


def _is_kept(symbol: Symbol, rule: Rule) -> bool:
    return not isinstance(symbol, Terminal) or rule.options.keep_all_tokens or not symbol.filter_out


def _actions(
    table: IntParseTable, states: dict[int, int], rules: list[Rule], kinds: dict[str, str]
) -> Iterator[dict[str, int]]:
    numbers = {rule: i for i, rule in enumerate(rules)}
    for state in states:
        row = table.states[state]
        found = {
            kinds[name]: states[target] if action is Shift else ~numbers[target]
            for name, (action, target) in row.items()
            if name in kinds
        }
        yield dict(sorted(found.items()))


def _gotos(table: IntParseTable, states: dict[int, int], kinds: dict[str, str]) -> Iterator[dict[str, int]]:
    for state in states:
        row = table.states[state]
        yield dict(sorted((str(name), states[target]) for name, (_, target) in row.items() if name not in kinds))


if __name__ == "__main__":
    main()
