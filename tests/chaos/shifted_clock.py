"""Put as sitecustomize.py before a process: its wall clock is SHIFTED_SECONDS off."""

import os
import time

_true_time, _shift = time.time, float(os.environ["SHIFTED_SECONDS"])
time.time = lambda: _true_time() + _shift
