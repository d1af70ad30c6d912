"""Memory of sparse problems, seen from outside: the peak of a process of its own."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import numpy as np, scipy.sparse, torch
from skhyper.core import losses
from skhyper.core.algorithms.implicit import Implicit
from skhyper.core.decays import Decays, Hyper
from skhyper.core.designs import SparseDesign
from skhyper.core.networks import LinearNetwork
from skhyper.core.problem import Problem

def response(n, p, density):
    rng = np.random.default_rng(0)
    size = n * int(density * p)
    where = rng.integers(n, size=size), rng.integers(p, size=size)
    x = scipy.sparse.csr_array((rng.standard_normal(size), where), shape=(n, p))
    y = torch.from_numpy((rng.random((n, 1)) < 0.5).astype(float))
    left_out = torch.arange(n) % 5 == torch.arange(5)[:, None]
    index = torch.arange(p + 1)
    index[-1] = -1
    loss = losses.LogLoss()
    network = LinearNetwork(p)
    train, validation = (~left_out).double(), left_out.double() / (n / 5)
    problem = Problem(SparseDesign([x]), y, train, validation, network, loss, loss, Decays(index))
    return Implicit(max_iter=5, cg_max_iter=20).bind(problem), x.data.nbytes + x.indices.nbytes + x.indptr.nbytes

def memory(key):
    lines = open("/proc/self/status").read().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(key))

def evaluate(response, exponent):
    hyper = Hyper(torch.tensor(3.0).double(), torch.tensor(exponent).double())
    return response.evaluate(hyper, torch.full((5,), 1e-4, dtype=torch.float64), tol=1e-4)

evaluate(response(100, 500, 0.01)[0], 1.0)  # loads what the libraries load at first use
big, size = response(10_000, 50_000, 1e-3)
for exponent in [2.0, 1.0]:
    open("/proc/self/clear_refs", "w").write("5")  # sets the peak back
    before = memory("VmRSS")
    w = evaluate(big, exponent).w
    assert w.isfinite().all()
    print((memory("VmHWM") - before - w.nbytes) / size)
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="reads the peak of the memory as Linux tells it")
def test_five_folds_of_a_sparse_matrix_need_less_than_ten_times_its_memory():
    run = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert all(float(ratio) < 10 for ratio in run.stdout.split()), run.stdout
    assert len(run.stdout.split()) == 2
