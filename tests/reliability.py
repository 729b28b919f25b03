"""Writes the figures of kills.py and test_fuzzing.py into docs/reliability.md.

python tests/reliability.py KILLS.json FUZZING.jsonl
"""

import json
import pathlib
import re
import sys

PAGE = pathlib.Path(__file__).parents[1] / "docs" / "reliability.md"


def table(kills: dict, fuzzed: list[dict]) -> str:
    moments = {
        "start": "while a stage starts, or takes over what the one before left",
        "step": "at any step",
        "save": "while a checkpoint is being written",
        "shards": "while shards are being written",
    }
    survived = kills["killed"] if not kills["faults"] else f"{kills['killed']}, with faults: {kills['faults']}"
    rows = [(f"killed {text}", kills["kills"][moment]) for moment, text in moments.items()]
    rows += [
        ("survived, with the same parameters, losses and records as undisturbed", survived),
        (f"most steps lost by one kill (a checkpoint every {kills['interval']} steps)", kills["steps_lost_at_most"]),
    ]
    names = [one["stage"] for one in fuzzed]
    rows += [
        (f"overrides that were traced: {', '.join(names)}", ", ".join(str(one["traced"]) for one in fuzzed)),
        ("overrides that were refused, naming a field", ", ".join(str(one["refused"]) for one in fuzzed)),
    ]
    return "\n".join(["| tried | |", "|---|---|", *(f"| {name} | {figure} |" for name, figure in rows)])


def main() -> None:
    kills = json.loads(pathlib.Path(sys.argv[1]).read_text())
    fuzzed = [json.loads(line) for line in pathlib.Path(sys.argv[2]).read_text().splitlines()]
    found = table(kills, fuzzed)
    text = PAGE.read_text()
    PAGE.write_text(re.sub(r"\| tried \|.*?(?=\n\n)", lambda _: found, text, flags=re.DOTALL))
    print(found)


if __name__ == "__main__":
    main()
