"""Which version of a kernel runs: by what was measured, by what was asked for, and after OpenCL failed."""

import itertools
import json

import numpy as np
import pytest

from brmpi import kernels
from brmpi.bench.workloads import WORKLOADS
from brmpi.errors import BadInput
from brmpi.kernels import choice, gravity, ising, opencl, philox

ON_DEVICE = pytest.mark.skipif(bool(kernels.without_opencl()), reason=kernels.without_opencl() or "-")
KERNEL = "gravity float64"


@pytest.fixture(autouse=True)
def _forget(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    choice.use()
    yield
    choice.use()


def row(backend, rate, size=2**20, kernel=KERNEL, threads=1, spread=0.05, **more):
    return {"kernel": kernel, "size": size, "threads": threads, "backend": backend, "parameters": {}, "rate": rate,
            "spread": spread, **more}


def tuning(*rows, cpu="Cortex-A76"):
    return {"schema": 1, "cpu": cpu, "rows": list(rows)}


def test_without_a_tuning_numba_runs(monkeypatch):
    assert choice.choose(KERNEL, 1000) == ("numba", {}, "not tuned")
    monkeypatch.setattr(choice, "has_numba", lambda: False)
    choice.use()
    assert choice.choose(KERNEL, 1000).backend == "numpy"
    assert choice.choose("product float64", 1000).backend == "numba"  # BLAS needs no Numba


@ON_DEVICE
def test_another_version_must_win_by_more_than_the_spreads():
    choice.use(tuning(row("numba", 100), row("opencl", 109)))
    assert choice.choose(KERNEL, 2**20)[::2] == ("numba", "no other is faster by more than the spread")
    choice.use(tuning(row("numba", 100), row("opencl", 112)))
    assert choice.choose(KERNEL, 2**20)[::2] == ("opencl", "1.12 times as fast as numba")
    choice.use(tuning(row("opencl", 112)))
    assert choice.choose(KERNEL, 2**20).backend == "numba"  # nothing to compare with


@ON_DEVICE
def test_only_rates_of_one_size_are_compared():
    """OpenCL that was not timed at the large size, as for lack of memory, does not win there by its rate at another."""
    choice.use(tuning(row("numba", 200, 2**16), row("opencl", 190, 2**16), row("numba", 100, 2**26)))
    assert choice.choose(KERNEL, 2**26).backend == "numba"
    choice.use(tuning(row("numba", 50, 2**16, threads=4), row("opencl", 60, 2**16)))
    assert choice.choose(KERNEL, 2**16).backend == "numba"


@ON_DEVICE
def test_the_nearest_size_and_number_of_threads_count(monkeypatch):
    choice.use(tuning(row("numba", 100, 1000), row("opencl", 50, 1000), row("numba", 100, 10**6),
                      row("opencl", 200, 10**6), row("numba", 100, 10**6, threads=4),
                      row("opencl", 90, 10**6, threads=4)))
    assert [choice.choose(KERNEL, size).backend for size in (10, 30_000, 32_000, 10**9)] == [
        "numba", "numba", "opencl", "opencl"]
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    choice.use(tuning(row("numba", 100), row("opencl", 200), row("numba", 100, threads=4),
                      row("opencl", 90, threads=4)))
    assert choice.choose(KERNEL, 2**20).backend == "numba"


@ON_DEVICE
def test_an_accelerator_is_for_sizes_that_were_measured():
    choice.use(tuning(row("numba", 100, 10**6), row("opencl", 200, 10**6, processor=False)))
    assert choice.choose(KERNEL, 5 * 10**5).backend == "opencl"
    assert choice.choose(KERNEL, 4 * 10**5).backend == "numba"


@ON_DEVICE
def test_another_device_than_the_tuned_one_is_not_taken():
    choice.use(tuning(row("numba", 100), row("opencl", 200, device="V3D 7.1")))
    chosen = choice.choose(KERNEL, 2**20)
    assert chosen.backend == "numba" and "V3D 7.1 was tuned, and here is " in chosen.why
    assert choice.rates({KERNEL: 2**20}) == {KERNEL: {"numba": (100, 0.05)}}


def test_what_is_asked_for_runs_with_its_tuned_parameters():
    choice.use(tuning(row("numba", 100), row("opencl", 10, parameters={"group": 32, "depth": 7, "width": 5})))
    assert choice.choose(KERNEL, 2**20, "opencl") == ("opencl", {"group": 32}, "asked for")  # others it has no more
    assert choice.choose(KERNEL, 2**20, "numpy").backend == "numpy"
    choice.use(tuning(row("opencl", 10, kernel="stencil heat5 float64", parameters={"tile": [512, 16, 8, 1]})))
    assert choice.choose("stencil heat5 float64", 2**20, "opencl").parameters == {"tile": (512, 16, 8, 1)}
    with pytest.raises(ValueError, match="backend = 'cuda': known are auto, numba, numpy, opencl"):
        choice.run(KERNEL, 1, "cuda", None, "float64")


def bodies(n=700):
    sources = np.zeros((4, gravity.TILE * gravity.tiles(n)))
    sources[:, :n] = np.random.default_rng(0).uniform(size=(4, n))
    return np.ascontiguousarray(sources[:3, :n]), sources


def pull(backend="auto"):
    targets, sources = bodies()
    out = np.zeros_like(targets)
    gravity.accelerations(targets, sources, 0.1, out, backend=backend)
    return out


def lacks(attribute, value):
    def change(monkeypatch):
        monkeypatch.setattr(opencl.Device, attribute, value)
    return change


def broken(monkeypatch):
    monkeypatch.setattr(opencl, "source", lambda name: "kernel void float64(global nonsense *x) {}")
    monkeypatch.setattr(opencl.device(), "_programs", {})


def full(monkeypatch):
    def bring(self, array, write=False):
        raise opencl.Unavailable(f"OpenCL device {self.name}: an array of {array.nbytes:,} bytes: out of device memory")
    monkeypatch.setattr(opencl.Device, "bring", bring)


@ON_DEVICE
@pytest.mark.parametrize(("change", "words"), [
    (lacks("has_float64", False), "does not compute in float64"), (broken, "nonsense"), (full, "out of device memory")])
def test_what_opencl_cannot_do_numba_does_and_it_is_told(monkeypatch, change, words):
    choice.use(tuning(row("numba", 100), row("opencl", 200)))
    change(monkeypatch)
    np.testing.assert_array_equal(pull(), pull("numba"))
    why = choice.ran()[KERNEL][0]["why"]
    assert choice.ran()[KERNEL][0]["backend"] == "numba" and words in why and why.startswith("OpenCL was chosen")
    assert list(choice.lost()) == [KERNEL]
    with pytest.raises(opencl.Unavailable, match=words):
        pull("opencl")


def test_no_device_at_all_falls_back(monkeypatch):
    def none():
        raise opencl.Unavailable("OpenCL: there is no device here")
    monkeypatch.setattr(opencl, "device", none)
    choice.use(tuning(row("numba", 100), row("opencl", 200)))
    np.testing.assert_array_equal(pull(), pull("numba"))
    assert "no device here" in choice.ran()[KERNEL][0]["why"]


@ON_DEVICE
def test_what_ran_is_told():
    choice.use(tuning(row("numba", 100, kernel="philox words"),
                      row("opencl", 200, kernel="philox words", device=opencl.device().name)))
    philox.words((1, 2), 0, 100)
    pull()
    told = choice.ran()
    assert [one["backend"] for one in told["philox words"]] == ["opencl"]
    assert told[KERNEL] == [{"backend": "numba", "parameters": {}, "why": "not tuned"}]
    json.dumps(told)


def test_all_agree_on_one_version_where_bits_differ():
    fast = {KERNEL: {"numba": (100, 0.02), "opencl": (300, 0.02)}}
    slow = {KERNEL: {"numba": (100, 0), "opencl": (90, 0)}}
    assert choice.agreed([slow]) == {KERNEL: "numba"} and choice.agreed([fast]) == {KERNEL: "opencl"}
    assert choice.agreed([slow, fast]) == {KERNEL: "opencl"}  # 390 beside 200
    assert choice.agreed([slow] * 30 + [fast]) == {KERNEL: "numba"}
    assert choice.agreed([fast, {KERNEL: {"numba": (100, 0.02)}}]) == {KERNEL: "numba"}  # one has no OpenCL
    assert choice.agreed([{KERNEL: {}}, fast]) == {KERNEL: "numba"}
    assert choice.agreed([{KERNEL: {}}], "numpy") == {KERNEL: "numpy"}
    assert choice.agreed([{"ising half_sweep": {"numba": (1, 0), "opencl": (9, 0)}}]) == {}  # each host its own


@ON_DEVICE
def test_what_was_agreed_on_is_taken_at_any_size():
    choice.use(tuning(row("numba", 100), row("opencl", 10)))
    choice.agree({KERNEL: "opencl"}, {KERNEL: 2**20})
    assert choice.choose(KERNEL, 1) == ("opencl", {}, "agreed on by all")
    assert choice.choose("gravity mixed", 1).backend == "numba"
    choice.use(tuning(row("numba", 100), row("opencl", 200)))
    choice.agree({}, {})
    assert choice.choose(KERNEL, 2**20).backend == "numba"


def test_ranks_on_a_host_share_an_accelerator():
    choice.use(tuning(row("numba", 100), row("opencl", 80, processor=False)))
    assert choice.rates({KERNEL: 2**20}, sharing=4) == {KERNEL: {"numba": (100, 0.05), "opencl": (20, 0.05)}}


@pytest.mark.parametrize(("text", "words"), [
    ("{", "is not JSON"), ("[]", "schema = None, but 1 is known"), ('{"schema": 2}', "schema = 2"),
    ('{"schema": 1, "cpu": 3}', "cpu = 3: must be a str"), ('{"schema": 1, "cpu": "x"}', "rows = None: must be a list"),
    (json.dumps(tuning(row("cuda", 1))), r"rows\[0\].backend = 'cuda'"),
    (json.dumps(tuning(row("numba", 0))), r"rows\[0\].rate = 0"),
    (json.dumps(tuning(row("numba", float("nan")))), r"rows\[0\].rate = nan"),
    (json.dumps(tuning(row("numba", 1), row("numba", 1, spread=-1))), r"rows\[1\].spread = -1"),
    (json.dumps({**tuning(), "rows": [3]}), r"rows\[0\].kernel = None")])
def test_a_file_that_is_no_tuning_is_refused(tmp_path, text, words):
    file = tmp_path / "tuning/cortex-a76.json"
    file.parent.mkdir()
    file.write_text(text)
    with pytest.raises(BadInput, match=words) as told:
        choice.read(tmp_path, ["Cortex-A76"])
    assert str(file) in str(told.value) and "run brmpi tune again, or remove it" in str(told.value)
    assert choice.read(tmp_path, ["Cortex-A72"]) == {}  # nobody's affair


def test_tunings_are_found_by_processor(tmp_path):
    both = ["Intel(R) N100", "Cortex-A76", "Cortex-A76"]
    assert choice.read(tmp_path, both) == {}
    (tmp_path / "tuning").mkdir()
    for cpu in ("Cortex-A76", "Intel(R) N100"):
        (tmp_path / f"tuning/{choice.slug(cpu)}.json").write_text(json.dumps(tuning(row("numba", 1), cpu=cpu)))
    assert list(choice.read(tmp_path, both)) == ["Cortex-A76", "Intel(R) N100"]
    assert sorted(file.name for file in (tmp_path / "tuning").iterdir()) == ["cortex-a76.json", "intel-r-n100.json"]
    assert choice.read(tmp_path, ["cortex a76"]) == {}  # another name that makes the same file's


def written(call):
    """What a workload's call writes to, by looking into its closure: all its arrays."""
    found = []
    for cell in call.__closure__ or ():
        inner = cell.cell_contents
        found += [inner] if isinstance(inner, np.ndarray) else written(inner) if callable(inner) else []
    return found


@ON_DEVICE
@pytest.mark.parametrize("work", [work for work in WORKLOADS if "float32" not in work.kernel], ids=lambda w: w.kernel)
def test_every_parameter_that_can_be_tuned_works(work):
    """Each combination runs, at a size that no tile divides, and gives the bits that the defaults do."""
    for backend in ("numba", "opencl"):
        known = choice.parameters(work.kernel, backend)
        assert all(len(values) > 1 for values in known.values())
        first = None
        for values in itertools.product(*known.values()):
            choice.use(tuning(row(backend, 1, kernel=work.kernel, parameters=dict(zip(known, values)))))
            _, call = work.make(1000)
            answer = call(backend)
            assert choice.ran()[work.kernel][0]["parameters"] == dict(zip(known, values))
            arrays = written(call) if answer is None else [np.asarray(answer)]
            assert arrays
            bits = [array.tobytes() for array in arrays]
            first = first or bits
            assert bits == first, values


@pytest.mark.parametrize("work", [work for work in WORKLOADS if choice.parameters(work.kernel, "numba")],
                         ids=lambda work: work.kernel)
def test_small_blocks_of_rows_give_the_same_bits(work, monkeypatch):
    """With a cache so small that a block has four rows."""
    known = choice.parameters(work.kernel, "numba")
    monkeypatch.setitem(known, "cache", (*known["cache"], 1))
    ends = []
    for cache in (None, 1):
        choice.use(tuning(row("numba", 1, kernel=work.kernel, parameters={"cache": cache})))
        _, call = work.make(11**3)
        call("numba")
        assert choice.ran()[work.kernel][0]["parameters"] == {"cache": cache}
        ends.append([array.tobytes() for array in written(call)])
    assert ends[0] == ends[1] and ends[0]


@pytest.mark.parametrize(("variables", "cores", "expected"), [
    ({"OMP_NUM_THREADS": "3"}, 8, 3), ({"OMP_NUM_THREADS": "0"}, 8, 8), ({"OMP_NUM_THREADS": "4,2"}, 8, 8),
    ({}, 8, 8), ({"OMPI_COMM_WORLD_LOCAL_SIZE": "4"}, 8, 2), ({"OMPI_COMM_WORLD_LOCAL_SIZE": "4"}, 1, 1),
    ({"MPI_LOCALNRANKS": "2"}, 8, 4)])
def test_threads_of_a_rank(monkeypatch, variables, cores, expected):
    for name in ("OMP_NUM_THREADS", *kernels.RANKS_HERE):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("os.sched_getaffinity", lambda process: set(range(cores)))
    assert kernels.threads() == expected


def test_a_workload_counts_as_the_kernel_does(monkeypatch):
    """What ``make`` says a call is of work is the size that the kernel chooses by, and its name is the kernel's."""
    seen = []
    choose = choice.choose
    with monkeypatch.context() as patch:
        patch.setattr(choice, "choose", lambda *asked: seen.append(asked[:2]) or choose(*asked))
        for work in WORKLOADS:
            amount, call = work.make(work.sizes[0])
            seen.clear()
            call("numba")
            name, size = seen[-1]
            assert name == work.kernel and 0.5 <= size / amount <= 2, (name, work.kernel, size, amount)


def test_ising_chooses_for_itself():
    spins = np.ones((10, 10), np.int8)
    ising.half_sweep(spins, 0, 0, ising.limits(0.4), (1, 2))
    assert list(choice.ran()) == ["ising half_sweep"]
