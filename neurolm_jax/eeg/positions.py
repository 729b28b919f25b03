"""From places on the head to electrodes: each channel is the electrode of the 10-10 system that is nearest to it.

Heads differ in size and shape, so places are compared as directions from the middle of the head, on a sphere of 95 mm.
"""

import functools
import pathlib
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from neurolm_jax.eeg.bids import Sidecars
from neurolm_jax.eeg.electrodes import electrode_id

if TYPE_CHECKING:  # MNE takes a second to import
    import mne

RADIUS = 95.0  # mm, of the sphere on which distances are measured
MAX_DISTANCE = 15.0  # mm, from a channel to its electrode
MIN_CHANNELS = 8  # from which on the middle of the head can be found
CLEARLY = 0.7  # of the usual layout's mean distance: another one must fit as well as this to be taken
# BIDS's coordinate systems by the directions of their axes: to the right, to the front and up, or front, left and up.
RIGHT_FRONT_UP = ("captrak", "eeglab-hj", "elektaneuromag", "neuromag", "mni", "icbm", "fsaverage", "ras", "scanras")
FRONT_LEFT_UP = ("eeglab", "ctf", "bti", "4dbti", "kityokogawa", "als")


@functools.cache
def standard_directions() -> dict[int, np.ndarray]:
    """Directions of the 10-10 system's electrodes by id, unit vectors [3] to the right, to the front and up.

    They are those of MNE's montage ``easycap-M1``, whose rings are 23 degrees apart, as in BioSemi's caps.
    """
    return {
        electrode: place / np.linalg.norm(place)
        for name, place in template("easycap-M1").items()
        if (electrode := electrode_id(name)) is not None
    }


def template(name: str) -> dict[str, np.ndarray]:
    """Places [3] of one of MNE's montages by label."""
    import mne

    montage = mne.channels.make_standard_montage(name)
    return {label: np.asarray(place) for label, place in montage.get_positions()["ch_pos"].items()}


def nearest_electrodes(directions: Mapping[str, np.ndarray]) -> dict[str, tuple[int, float]]:
    """Nearest electrode of the 10-10 system and its distance in mm, by channel, of unit vectors [3].

    No two channels have one electrode: the nearest of them keeps it. Channels further than ``MAX_DISTANCE`` have none.
    """
    standard = standard_directions()
    # To a tenth of a mm: of two places on either side of the midline the first is taken on every machine.
    distances = _distances(directions, standard).round(1)  # [C, E]
    electrodes = list(standard)
    found: dict[str, tuple[int, float]] = {}
    for channel, name in enumerate(directions):
        electrode = int(distances[channel].argmin())
        if distances[channel, electrode] <= MAX_DISTANCE and distances[:, electrode].argmin() == channel:
            found[name] = (electrodes[electrode], float(distances[channel, electrode]))
    return found


def electrodes_at(places: Mapping[str, np.ndarray]) -> dict[str, tuple[int, float]]:
    """Nearest electrode and its distance by channel, see ``nearest_electrodes``, of places [3] on a head.

    Args:
      places: in any unit, from any origin; axes to the right, to the front and up.

    Of the layouts in use (rings of 23 or 18 degrees) the one that fits is taken. Fewer than ``MIN_CHANNELS`` places, or
    places that do not surround a middle, tell nothing.
    """
    names = [name for name, place in places.items() if np.isfinite(place).all() and np.any(place)]
    if len(names) < MIN_CHANNELS:
        return {}
    x = np.stack([np.asarray(places[name], float) for name in names])
    x = x / (np.abs(x).max() or 1)
    # Least squares for |x|^2 = 2 x.middle + (radius^2 - |middle|^2): a sphere through all places.
    solution, _, rank, _ = np.linalg.lstsq(np.c_[2 * x, np.ones(len(x))], np.square(x).sum(1), rcond=None)
    offsets = x - solution[:3]
    lengths = np.linalg.norm(offsets, axis=1)
    if rank < 4 or lengths.std() > 0.25 * lengths.mean():
        return {}
    directions = offsets / lengths[:, None]  # [C, 3]
    layouts = [directions, _with_inclination(directions, 92 / 72)]
    standard = standard_directions()
    fits = [
        np.minimum(_distances(dict(zip(names, layout)), standard).min(1), MAX_DISTANCE).mean() for layout in layouts
    ]
    return nearest_electrodes(dict(zip(names, layouts[int(fits[1] < CLEARLY * fits[0])])))


def montage_places(raw: "mne.io.BaseRaw") -> dict[str, np.ndarray]:
    """Places [3] of channels, m, that a recording brings with it; {} if it brings none."""
    montage = raw.get_montage()
    if montage is None:
        return {}
    return {name: np.asarray(place) for name, place in montage.get_positions()["ch_pos"].items()}


def with_places(raw: "mne.io.BaseRaw", places: Mapping[str, np.ndarray]) -> "mne.io.BaseRaw":
    """Give an ``mne.io.Raw`` the places of its channels, [3] to the right, front and up, where it has none."""
    import mne

    if not places or raw.get_montage() is not None:
        return raw
    ch_pos = {name: np.asarray(place) for name, place in places.items()}
    montage = mne.channels.make_dig_montage(ch_pos, coord_frame="head")
    return raw.set_montage(montage, on_missing="ignore", verbose="error")


def read_places(recording: pathlib.Path, sidecars: Sidecars) -> dict[str, np.ndarray]:
    """Return places [3] of electrodes in m, axes to the right, front and up, by the sidecars of a BIDS recording.

    They are those of the nearest table whose axes are known by landmarks or by the name of the coordinate system; {} if
    there is none.
    """
    return next(filter(None, map(_to_right_front_up, sidecars.positions(recording))), {})


def _distances(directions, standard):
    """mm from each direction to each standard one [C, E], along a straight line."""
    x, y = np.stack(list(directions.values())), np.stack(list(standard.values()))
    return RADIUS * np.linalg.norm(x[:, None] - y[None], axis=-1)


def _with_inclination(directions, factor):
    """Directions [C, 3] with their angles from the vertex multiplied."""
    angle = np.arccos(np.clip(directions[:, 2], -1, 1)) * factor
    flat = directions[:, :2] / np.maximum(np.linalg.norm(directions[:, :2], axis=1, keepdims=True), 1e-9)
    return np.c_[flat * np.sin(angle)[:, None], np.cos(angle)]


def _to_right_front_up(positions):
    """Places in a head's own axes, by its landmarks, else by the name of the coordinate system; {} if neither tells."""
    places = {name: np.array(place) for name, place in positions.metres.items()}
    landmarks = {str(k).upper(): v for k, v in (positions.landmarks or {}).items()}
    try:
        nasion, left, right = (np.array(landmarks[name], float).reshape(3) for name in ("NAS", "LPA", "RPA"))
    except (KeyError, TypeError, ValueError):
        nasion = left = right = None
    if nasion is not None and np.linalg.norm(np.cross(right - left, nasion - left)) > 0:
        across = (right - left) / np.linalg.norm(right - left)
        front = nasion - left - across * np.dot(nasion - left, across)
        front /= np.linalg.norm(front)
        axes = np.stack([across, front, np.cross(across, front)])
        return {name: axes @ place for name, place in places.items()}
    name = (positions.system or "").lower()
    if name.startswith(RIGHT_FRONT_UP):
        return places
    if name.startswith(FRONT_LEFT_UP):
        return {channel: np.array([-y, x, z]) for channel, (x, y, z) in places.items()}
    return {}
