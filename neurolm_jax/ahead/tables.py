"""Figures of many programs side by side, in Markdown."""

import json
import pathlib
from collections.abc import Sequence

from neurolm_jax.errors import UserError

GIGABYTE = 1e9


def read(folder: pathlib.Path) -> list[dict]:
    """What ``aot --json`` wrote into a folder, in the order of files' names.

    Raises:
      UserError: a file is none of those, or there is none.
    """
    found = []
    for file in sorted(folder.glob("*.json")):
        try:
            one = json.loads(file.read_text())
        except ValueError as error:
            raise UserError(f"{file}: not valid JSON ({error})") from error
        if not isinstance(one, dict) or "topology" not in one:
            raise UserError(f"{file}: not written by 'aot --json'")
        if "best" in one:  # of a search
            one = {key: one[key] for key in ("config", "topology")} | one["best"]
        found.append(one)
    if not found:
        raise UserError(f"{folder}: holds no file that 'aot --json' wrote")
    return found


def programs(found: Sequence[dict]) -> str:
    """A row for each program."""
    heads = ["config", "machine", "remat", "rows a chip", "peak, GB", "waste", "computing, memory, network, ms"]
    heads += ["utilisation <=", "25,000 h >="]
    lines = [heads, ["---"] * len(heads)]
    for one in found:
        rows = one["rows"]
        peak = (one["bytes"]["peak"] + one["bytes"]["program"]) / GIGABYTE
        hours = f"{one['corpus_hours']:.2g} h, {one['corpus_chip_hours']:,.0f} chip-h" if one["corpus_hours"] else ""
        lines.append(
            [
                one["config"].removeprefix("configs/").replace(".py:", " "),
                one["topology"],
                one["remat"],
                " + ".join(f"{count / one['chips']:g}" for count in rows.values() if count),
                f"{peak:.1f} of {one['bytes']['memory'] / GIGABYTE:.0f}",
                f"{one['waste']:.2f}",
                _times(one, 0),
                f"{one['utilisation']:.0%}",
                hours,
            ]
        )
    return _markdown(lines)


def weak_scaling(found: Sequence[dict]) -> str:
    """Programs of one config on ever more chips of a kind, with as many rows on each: their speed for each chip beside
    that of the fewest, if sending goes on beside all other work, and if nothing goes on beside it."""
    groups: dict[tuple, list[dict]] = {}
    for one in found:
        rows = tuple(count / one["chips"] for count in one["rows"].values())
        groups.setdefault((one["config"], one["chip"], one["remat"], rows), []).append(one)
    heads = ["config", "machine", "chips", "sent a chip, GB", "computing, memory, network, ms"]
    heads += ["beside", "one after another"]
    lines = [heads, ["---"] * len(heads)]
    for (config, _, _, _), members in sorted(groups.items()):
        if len(members) < 2:
            continue
        members = sorted(members, key=lambda one: one["chips"])
        for one in members:
            lines.append(
                [
                    config.removeprefix("configs/").replace(".py:", " "),
                    one["topology"],
                    str(one["chips"]),
                    f"{sum(one['sent'].values()) / GIGABYTE:.2f}",
                    _times(one, 1),
                    *(f"{_speed(one, key) / _speed(members[0], key):.1%}" for key in ("", "_serial")),
                ]
            )
    return _markdown(lines)


def _times(one, digits):
    seconds = one["seconds"] | ({"memory": None} if one["quick"] else {})
    times = (seconds[part] for part in ("compute", "memory", "network"))
    return ", ".join("?" if time is None else f"{1e3 * time:.{digits}f}" for time in times)


def _speed(one, kind):
    return one[f"tokens_per_second{kind}"] / one["chips"]


def _markdown(lines):
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines) + "\n"
