"""What the sets of Temple University Hospital share: their electrodes, and how file names tell the subject."""

import pathlib

from neurolm_jax.eeg.preprocessing import Preprocessing

# The average-reference montage (01_tcp_ar), in the order of the released code. North American mains: 60 Hz.
ELECTRODES = tuple("FP1 FP2 F3 F4 C3 C4 P3 P4 O1 O2 F7 F8 T3 T4 T5 T6 A1 A2 FZ CZ PZ T1 T2".split())
PREPROCESSING = Preprocessing(mains=60.0)
COHORT = "tuh"


def subject_of(file: pathlib.Path) -> str:
    """``aaaaaaaq`` of ``aaaaaaaq_s004_t000.edf``; the same eight letters in all of these sets."""
    return file.stem.split("_")[0].lower()
