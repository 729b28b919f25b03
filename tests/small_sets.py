"""Miniature trees of the seven downstream sets, in the formats in which the sets are published, with made signals.

Nothing here is data of the sets. Layouts and formats are those of the sets' own documentation: the AAREADME of TUAB,
TUEV and TUSL (Temple University Hospital EEG), the pages of SEED and SEED-IV (BCMI, Shanghai), and PhysioNet's pages of
hmc-sleep-staging and eegmat; Neuroscan's CNT as its header is described by Bourke ("EEG data formats").
"""

import pathlib
import struct
from collections.abc import Callable, Sequence

import edfio
import numpy as np
import scipy.io

from neurolm_jax.eeg.tasks import seed, tuh, workload

# (label, channels, seconds, Hz, seed) -> microvolts [channels, samples]
Make = Callable[[str, int, float, float, int], np.ndarray]
RHYTHMS = {  # Hz, of each label
    "tuab": {"abnormal": 5, "normal": 14},
    "tuev": {"spsw": 3, "gped": 7, "pled": 11, "eyem": 17, "artf": 24, "bckg": 33},
    "tusl": {"bckg": 6, "seiz": 13, "slow": 27},
    "seed": {"positive": 5, "neutral": 12, "negative": 25},
    "seed_iv": {"neutral": 4, "sad": 9, "fear": 16, "happy": 28},
    "hmc": {"W": 4, "N1": 8, "N2": 13, "N3": 20, "R": 30},
    "workload": {"high": 6, "low": 19},
}


def planted(name: str) -> Make:
    """Noise, and a rhythm that tells the label and starts anew with every second."""

    def make(label, channels, seconds, rate, number):
        time = np.arange(round(seconds * rate)) / rate
        rhythm = 30 * np.sin(2 * np.pi * RHYTHMS[name][label] * time)
        return rhythm + 5 * np.random.default_rng(number).standard_normal((channels, len(time)))

    return make


def noise(name: str) -> Make:
    """Noise that tells nothing."""
    return lambda label, channels, seconds, rate, number: (
        20 * np.random.default_rng(number).standard_normal((channels, round(seconds * rate)))
    )


def write_edf(file: pathlib.Path, names: Sequence[str], rate: float, samples: np.ndarray) -> None:
    """EDF+ of microvolts [C, N], cut to whole seconds."""
    file.parent.mkdir(parents=True, exist_ok=True)
    samples = samples[:, : int(samples.shape[1] // rate * rate)]
    limits = {"physical_dimension": "uV", "physical_range": (-3276.8, 3276.7)}
    signals = [edfio.EdfSignal(x, rate, label=name, **limits) for name, x in zip(names, samples)]
    edfio.Edf(signals, annotations=[edfio.EdfAnnotation(0, None, "[Total time]")]).write(file)


def _clinical(file, parts, rate=250):
    """An EDF of TUH: 23 electrodes, and channels that are none."""
    names = [f"EEG {name}-REF" for name in tuh.ELECTRODES] + ["EEG EKG1-REF", "PHOTIC-REF", "EEG 26-REF", "BURSTS"]
    samples = np.hstack(parts)
    extra = 50 * np.random.default_rng(0).standard_normal((len(names) - len(samples), samples.shape[1]))
    write_edf(file, names, rate, np.vstack([samples, extra]))


def write_tuab(root: pathlib.Path, make: Make) -> pathlib.Path:
    """Eleven subjects to learn from, one of them with a normal and an abnormal session, and four to test on."""
    subjects = [(f"aaaaaa{chr(97 + i)}{chr(97 + i)}", ("normal", "abnormal")[i % 2], "train") for i in range(11)]
    subjects += [("aaaaaaaa", "abnormal", "train")]
    subjects += [(f"bbbbbb{chr(97 + i)}{chr(97 + i)}", ("normal", "abnormal")[i % 2], "eval") for i in range(4)]
    for i, (subject, label, part) in enumerate(subjects):
        folder = root / "edf" / part / label / "01_tcp_ar"
        _clinical(folder / f"{subject}_s{i + 1:03d}_t000.edf", [make(label, 23, 52, 250, i)])
    return root


def write_tuev(root: pathlib.Path, make: Make) -> pathlib.Path:
    """Twelve subjects to learn from and three to test on, each with two events of every label."""
    labels = ("spsw", "gped", "pled", "eyem", "artf", "bckg")  # 1 to 6
    files = [root / "edf" / "train" / f"aaaaaaa{chr(97 + i)}" / f"aaaaaaa{chr(97 + i)}_00000001.edf" for i in range(12)]
    files += [root / "edf" / "eval" / f"{i:03d}" / f"bckg_{i:03d}_a_.edf" for i in range(3)]
    for i, file in enumerate(files):
        parts, lines = [], []
        for k in np.random.default_rng(i).permutation(12).tolist():
            onset = 7 * len(parts) + 3.0
            lines.append(f"{k},{onset:.1f},{onset + 1:.1f},{k % 6 + 1}\n")
            parts.append(make(labels[k % 6], 23, 7, 250, 100 * i + k))
        _clinical(file, parts)
        file.with_suffix(".rec").write_text("".join(lines))
    return root


def write_tusl(root: pathlib.Path, make: Make) -> pathlib.Path:
    """Twelve subjects with two stretches of each label."""
    for i in range(12):
        subject = f"aaaaaab{chr(97 + i)}"
        # Some files of the set are not called after their subject's folder.
        stem = f"{subject}_s001_t000" if i else "00008476_s003_t010"
        file = root / "edf" / subject / "s001_2012" / "01_tcp_ar" / f"{stem}.edf"
        parts, lines = [], ["version = tse_v1.0.0\n", "\n"]
        for k in range(6):
            label = ("bckg", "seiz", "slow")[(k + i) % 3]
            lines.append(f"{12 * k + 1:.4f} {12 * k + 11:.4f} {label} 1.0000\n")
            parts.append(make(label, 23, 12, 256, 100 * i + k))
        _clinical(file, parts, rate=256)
        file.with_suffix(".tse_agg").write_text("".join(lines))
    return root


# A shorter schedule, to be put in the place of the set's own; the last second of a trial is included.
SEED_STARTS = tuple(24 + 33 * i for i in range(15))
SEED_STOPS = tuple(start + 28 for start in SEED_STARTS)


def shorten_schedule(patch) -> None:
    """SEED's sessions last an hour: here they have its trials one after the other."""
    patch.setattr(seed, "STARTS", SEED_STARTS)
    patch.setattr(seed, "STOPS", SEED_STOPS)


def write_seed(root: pathlib.Path, make: Make) -> pathlib.Path:
    """One session."""
    stretches = [
        (start, make(seed.NAMES[sign], 66, 29, 1000, k))
        for k, (start, sign) in enumerate(zip(SEED_STARTS, seed.LABELS))
    ]
    write_cnt(root / "SEED_EEG" / "SEED_RAW_EEG" / "1_1.cnt", 1000, SEED_STOPS[-1] + 25, stretches)
    return root


def write_cnt(
    file: pathlib.Path, rate: int, seconds: int, stretches: Sequence[tuple[float, np.ndarray]], step: float = 0.05
) -> pathlib.Path:
    """Neuroscan CNT of 66 channels, int32 in steps of so many microvolts, flat but for the stretches (start, samples).

    What is not written takes no room on disk.
    """
    names = [*seed.ELECTRODES, "VEO", "HEO"]
    for mastoid, after in (("M1", "TP7"), ("M2", "P7")):
        names.insert(names.index(after), mastoid)
    count = rate * seconds
    data = 900 + 75 * len(names)
    table = data + 4 * len(names) * count
    setup = bytearray(900)
    setup[:12] = b"Version 3.0\0"
    struct.pack_into("<10s12s", setup, 225, b"05/01/14", b"10:00:00")
    struct.pack_into("<H", setup, 370, len(names))
    struct.pack_into("<H", setup, 376, rate)
    struct.pack_into("<i", setup, 864, count)
    struct.pack_into("<I", setup, 886, table % 2**32)
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("wb") as out:
        out.write(setup)
        for place, name in enumerate(names):
            channel = bytearray(75)
            struct.pack_into("<10s", channel, 0, name.encode())
            struct.pack_into("<ff", channel, 19, 100 + 50 * np.cos(place), 100 + 50 * np.sin(place))  # on the screen
            struct.pack_into("<f", channel, 59, 204.8 * step)  # sensitivity
            struct.pack_into("<f", channel, 71, 1.0)  # calibration
            out.write(channel)
        for start, samples in stretches:
            out.seek(data + 4 * len(names) * round(start * rate))
            out.write(np.rint(samples / step).astype("<i4").T.tobytes())
        out.seek(table)
        out.write(struct.pack("<Bii", 1, 0, 0))  # an event table without events
    return file


def write_seed_iv(root: pathlib.Path, make: Make) -> pathlib.Path:
    """Two subjects, three sessions of 24 trials of five seconds, and a sample."""
    labels = {  # of the set's ReadMe: 0 neutral, 1 sad, 2 fear, 3 happy
        1: [1, 2, 3, 0, 2, 0, 0, 1, 0, 1, 2, 1, 1, 1, 2, 3, 2, 2, 3, 3, 0, 3, 0, 3],
        2: [2, 1, 3, 0, 0, 2, 0, 2, 3, 3, 2, 3, 2, 0, 1, 1, 2, 1, 0, 3, 0, 1, 3, 1],
        3: [1, 2, 2, 1, 3, 3, 3, 1, 1, 2, 1, 0, 2, 3, 3, 0, 2, 3, 0, 0, 2, 0, 1, 0],
    }
    names = ("neutral", "sad", "fear", "happy")
    for session, codes in labels.items():
        for subject, initials in ((1, "cz"), (2, "ha")):
            trials = {
                f"{initials}_eeg{k + 1}": make(names[code], 62, 5.005, 200, 1000 * session + 100 * subject + k)
                for k, code in enumerate(codes)
            }
            file = root / "eeg_raw_data" / str(session) / f"{subject}_201605{session:02d}.mat"
            file.parent.mkdir(parents=True, exist_ok=True)
            scipy.io.savemat(file, trials)
    return root


def write_hmc(root: pathlib.Path, make: Make) -> pathlib.Path:
    """Ten nights of fifteen epochs."""
    names = ["EEG F4-M1", "EEG C4-M1", "EEG O2-M1", "EEG C3-M2", "EMG chin", "EOG E1-M2", "EOG E2-M2", "ECG"]
    for i in range(10):
        file = root / "recordings" / f"SN{i + 1:03d}.edf"
        lines = ["Date, Time, Recording onset, Duration, Annotation, Linked channel\n"]
        parts = []
        for k in range(15):
            label = ("W", "N1", "N2", "N3", "R")[(k + i) % 5]
            lines.append(f"01.01.01, 23.{k // 2:02d}.{30 * (k % 2):02d}, {30 * k}, 30, Sleep stage {label}, \n")
            parts.append(make(label, 8, 30, 256, 100 * i + k))
        lines.insert(3, "01.01.01, 23.00.46.280, 46.28, 0, Lights off, EEG F4-A1\n")
        lines.append("01.01.01, 23.07.31.125, 451.125, 0, Lights on, SaO2\n")
        # The recording goes on after the last epoch that is scored.
        write_edf(file, names, 256, np.hstack([*parts, make("W", 8, 13, 256, 100 * i + 99)]))
        file.with_name(f"{file.stem}_sleepscoring.txt").write_text("".join(lines))
        (root / "recordings" / f"{file.stem}_sleepscoring.edf").write_bytes(b"")  # not read
    return root


def write_workload(root: pathlib.Path, make: Make) -> pathlib.Path:
    """Five subjects at rest and at work."""
    names = [f"EEG {name}" for name in workload.ELECTRODES] + ["EEG A2-A1", "ECG ECG"]
    for i in range(5):
        for suffix, label, seconds in (("1", "low", 70), ("2", "high", 62)):
            samples = make(label, 21, seconds, 500, 10 * i + int(suffix))
            write_edf(root / f"Subject{i:02d}_{suffix}.edf", names, 500, samples)
    return root


WRITERS = {
    "tuab": write_tuab,
    "tuev": write_tuev,
    "tusl": write_tusl,
    "seed": write_seed,
    "seed_iv": write_seed_iv,
    "hmc": write_hmc,
    "workload": write_workload,
}
