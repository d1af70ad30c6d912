"""Time and peak memory of one call, in a process of its own: memory that an earlier fit left would hide a peak."""

import json
import os
import subprocess
import sys
import threading
import time

INTERVAL = 0.002


def resident():
    """Bytes that this process holds in memory now."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def measure(call):
    """Run `call`: its result, and seconds, processor seconds and the increase of resident memory at its peak in bytes.

    Memory is sampled, so that the figure is from below; samples are 2 ms apart.
    """
    done, start = threading.Event(), resident()
    peaks = [start]

    def sample():
        while not done.wait(INTERVAL):
            peaks.append(max(peaks.pop(), resident()))

    sampler = threading.Thread(target=sample, daemon=True)
    sampler.start()
    wall, processor = time.perf_counter(), time.process_time()
    result = call()
    seconds = {"seconds": time.perf_counter() - wall, "cpu_seconds": time.process_time() - processor}
    done.set()
    sampler.join()
    return result, {**seconds, "peak": max(peaks[0], resident()) - start}


def in_own_process(module, *arguments, threads=1):
    """`python -m module arguments`, whose last line of output is JSON."""
    limits = {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
    command = [sys.executable, "-m", module, *map(str, arguments)]
    done = subprocess.run(command, env={**os.environ, **limits}, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])
