"""What a model has been trained on, as its checkpoints carry it from stage to stage, and which recordings of a test or
validation part are among that.

A description is JSON: ``stages``, a list of ``{"stage", "sets"}`` from the first stage on, whose sets are content
hashes; ``sets``, by content hash ``{"source", "split", "recordings"}``; ``unknown``, earlier stages whose checkpoints
tell nothing; ``cohorts``, people that may have been seen, ``{cohort: why}``.
"""

from collections.abc import Iterable, Mapping, Sequence

from neurolm_jax.data.known_recordings import KnownRecordings
from neurolm_jax.data.shards import Shards

NOTHING: dict = {"stages": [], "sets": {}, "unknown": [], "cohorts": {}}
FIELDS = "hash", "file_hashes", "fingerprint", "file_fingerprints", "subject"
NAMED = 3  # recordings that a line names


def describe(stage: str, corpora: Iterable[Shards], earlier: Mapping[str, Mapping | None]) -> dict:
    """Return what a stage and those before it have been trained on.

    Args:
      corpora: what the stage itself reads; of each, the recordings that its index has records of.
      earlier: descriptions of the stages that it starts from, by their names; None where a checkpoint has none.
    """
    found: dict = {"stages": [], "sets": {}, "unknown": [], "cohorts": {}}
    for name, before in earlier.items():
        if before is None:
            found["unknown"].append(name)
            continue
        found["stages"] += [one for one in before["stages"] if one not in found["stages"]]
        found["unknown"] += [one for one in before["unknown"] if one not in found["unknown"]]
        found["sets"] |= before["sets"]
        found["cohorts"] |= before["cohorts"]
    own = {shards.content: _describe_set(shards) for shards in corpora}
    return found | {"stages": [*found["stages"], {"stage": stage, "sets": list(own)}], "sets": found["sets"] | own}


def _describe_set(shards):
    manifest = shards.manifest
    told = {"source": manifest.get("source", ""), "split": manifest.get("split", "")}
    return told | {"recordings": recordings_of(manifest)}


def recordings_of(manifest: Mapping) -> list[dict]:
    """Return the recordings of a manifest that have records in its index, each with name, cohort and ``FIELDS``."""
    numbers = manifest.get("index", {}).get("recording")
    held = None if numbers is None else set(map(int, numbers))
    found = []
    for number, recording in enumerate(manifest.get("recordings", ())):
        if recording["outcome"] == "used" and (held is None or number in held):
            told = {name: recording[name] for name in FIELDS if recording.get(name)}
            cohort = manifest.get("cohort", recording.get("cohort"))
            found.append({"name": recording["name"]} | ({"cohort": cohort} if cohort else {}) | told)
    return found


def contamination(trained_on: Mapping | None, manifests: Sequence[Mapping]) -> dict:
    """Count the recordings of some parts that a model has been trained on, or whose people it has.

    Returns:
      ``recordings`` in all; ``contaminated``, None where the checkpoint does not tell: the sum of ``same`` recordings,
      ``exported`` anew and ``people``, others of people who were trained on in another set. Beside it ``own_people``:
      others of people in the training part of the same set, as some sets are split by design; ``possible``: those of a
      cohort that was seen, nobody tells which of it; ``names`` of the contaminated; ``unknown`` stages; ``notes``.
    """
    parts = [(manifest.get("source", ""), recording) for manifest in manifests for recording in recordings_of(manifest)]
    if trained_on is None:
        return {"recordings": len(parts), "contaminated": None, "unknown": [], "names": [], "notes": []}
    recordings = [recording for _, recording in parts]
    sources = {content: one["source"] for content, one in trained_on["sets"].items()}
    known = [recording for one in trained_on["sets"].values() for recording in one["recordings"]]
    people: dict[tuple, set[str]] = {}
    for content, one in trained_on["sets"].items():
        for recording in one["recordings"]:
            people.setdefault(_person(recording), set()).add(sources[content])
    counts, names = dict.fromkeys(("same", "exported", "people", "own_people", "possible"), 0), []
    for (source, recording), match in zip(parts, KnownRecordings(known).find(recordings)):
        person = _person(recording)
        seen = people.get(person, set()) if person else set()
        if match or seen - {source}:
            kind = ("exported" if match.copy else "same") if match else "people"
            names.append(recording["name"])
        elif seen:
            kind = "own_people"
        elif recording.get("cohort") in trained_on["cohorts"]:
            kind = "possible"
        else:
            continue
        counts[kind] += 1
    cohorts = {recording.get("cohort") for recording in recordings}
    notes = [note for cohort, note in trained_on["cohorts"].items() if cohort in cohorts]
    told = {"recordings": len(parts), "contaminated": len(names)} | counts
    return told | {"names": names, "unknown": list(trained_on["unknown"]), "notes": notes}


def _person(recording):
    """Cohort and subject; None where one of them is not told: a number tells nobody without its cohort."""
    cohort, subject = recording.get("cohort"), recording.get("subject")
    return (cohort, subject) if cohort and subject else None


def line(found: Sequence[Mapping], split: str) -> str:
    """Return what ``contamination`` found of some tasks' parts, in one line."""
    total = sum(one["recordings"] for one in found)
    if any(one["contaminated"] is None for one in found):
        return f"contaminated: unknown of {total} {split} recordings (the checkpoint does not tell what it learnt from)"
    said = []
    for kind, words in (
        ("same", "trained on"),
        ("exported", "trained on as another export"),
        ("people", "of people trained on in other sets"),
        ("own_people", "not counted: of people in the set's own training part"),
        ("possible", "not counted: of a cohort that may have been seen"),
    ):
        if count := sum(one[kind] for one in found):
            said.append(f"{count} {words}")
    if names := [name for one in found for name in one["names"]]:
        said.append(", ".join(names[:NAMED]) + (" ..." if len(names) > NAMED else ""))
    unknown = sorted({stage for one in found for stage in one["unknown"]})
    if unknown:
        said.append(f"unknown of {', '.join(unknown)}, whose checkpoints do not tell")
    said += sorted({note for one in found for note in one["notes"]})
    return f"contaminated: {len(names)} of {total} {split} recordings" + (f" ({'; '.join(said)})" if said else "")
