"""The host's part of a round: what its thread computes, and what of that the device has to wait for.

Usage: python studies/budget/host_time.py [PACKAGE ...] [--layers 10 36 64] [--methods ar "dflash 8" "ddtree 16" auto]

PACKAGE: folders that hold an `mlx_ddtree`, this checkout's by default; with two of them their rounds can be compared.
Each is measured in processes of its own, in turns.  Targets are random qwen3 models of tiny width, drafters are random,
too: acceptance is near 0, so a round is all overhead, which is what is looked for.  Per round, in milliseconds:

wall     of the clock
main     processor time of the thread that decodes ("removed" only by running less)
graph    the part of `main` inside the two models' calls, which build their graphs
exposed  all that was queued is done, and the next eval has not come ("hidden" by queueing it earlier)
sending  the device is idle, too, while eval or async_eval hands a graph over: operations this small end before the next
blocked  that thread sleeps: it waits for the device, or for room in its queue
waits    lines at which it waits for a result; sampled every 0.1 ms in a pass of its own, so shorter ones are missed.
         --verbose names them

Linux and MLX's CPU backend only.  Run it on an idle machine with one BLAS thread (MKL_NUM_THREADS=1), so that a
stream's thread is the whole device.  In the measuring processes mx.eval and mx.async_eval are wrapped.
"""

import argparse
import importlib.util
import json
import linecache
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from pathlib import Path
from statistics import median

ROOT = Path(__file__).parents[2]
COLUMNS = ("wall", "main", "graph", "exposed", "sending", "blocked", "waits")
METHODS = ("ar", "dflash 8", "ddtree 16", "auto")
STEADY = 3  # rounds that are over before one counts
SAMPLE = 0.0001
PROMPT = list(range(10, 40))
TARGET = {
    "architectures": ["Qwen3ForCausalLM"],
    "model_type": "qwen3",
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "vocab_size": 8192,
    "max_position_embeddings": 4096,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1e4,
    "tie_word_embeddings": True,
    "torch_dtype": "float32",
}
DRAFTER = {**TARGET, "architectures": ["DFlashDraftModel"], "num_hidden_layers": 5, "block_size": 16}


def options_of(method):
    """Of stream_generate."""
    name, _, size = method.partition(" ")
    if name == "dflash":
        return {"method": name, "block_size": int(size)}
    return {"tree_budget": int(size)} if size else {"method": name} if name == "ar" else {}


# ---------------------------------------------------------------- models


def save_pair(folder, layers):
    """A random pair's folders, as load() takes them; the tokenizer is the embedded pair's."""
    import mlx.core as mx  # noqa: PLC0415
    from mlx.utils import tree_flatten  # noqa: PLC0415
    from mlx_lm.models.qwen3 import Model, ModelArgs  # noqa: PLC0415

    taps = sorted({1 + i * (layers - 3) // 4 for i in range(5)})
    config = TARGET | {"num_hidden_layers": layers}
    mx.random.seed(layers)
    weights = dict(tree_flatten(Model(ModelArgs.from_dict({**config, "rope_scaling": None})).parameters()))
    write_model(folder / "target", config, weights)
    for file in (ROOT / "mlx_ddtree" / "demo" / "target").glob("tokenizer*"):
        (folder / "target" / file.name).write_bytes(file.read_bytes())
    config = DRAFTER | {"num_target_layers": layers, "dflash_config": {"mask_token_id": 3, "target_layer_ids": taps}}
    blocks = Model(ModelArgs.from_dict({**config, "model_type": "qwen3", "rope_scaling": None})).parameters()["model"]
    weights = dict(tree_flatten({"layers": blocks["layers"], "norm": blocks["norm"]}))
    width = config["hidden_size"]
    weights |= {
        "fc.weight": mx.random.normal((width, width * len(taps))) * 0.1,
        "hidden_norm.weight": mx.ones((width,)),
    }
    write_model(folder / "drafter", config, weights)


def write_model(folder, config, weights):
    import mlx.core as mx  # noqa: PLC0415

    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    mx.save_safetensors(str(folder / "model.safetensors"), weights, {"format": "mlx"})


# ---------------------------------------------------------------- measuring


class Evals:
    """The device's idle time inside and outside of mx.eval and mx.async_eval, in seconds.

    threads: those that work for the device.  ran: from a thread to its processor time.
    """

    def __init__(self, mx, threads, ran):
        self.inside = 0.0
        self.outside = 0.0
        self._threads = threads
        self._ran = ran
        self._last = self.idle()
        for name in ("eval", "async_eval"):
            setattr(mx, name, self.watched(getattr(mx, name)))

    def idle(self):
        return time.perf_counter() - sum(map(self._ran, self._threads))

    def start(self):
        self.inside = self.outside = 0.0
        self._last = self.idle()

    def watched(self, function):
        def call(*arrays):
            before = self.idle()
            self.outside += before - self._last
            try:
                return function(*arrays)
            finally:
                self._last = self.idle()
                self.inside += self._last - before

        return call


class Graphs:
    """Processor time in the calls of a pair's target and drafter; what one calls within another counts once."""

    def __init__(self, pair):
        self.seconds = 0.0
        self._depth = 0
        target = pair.target
        for name in dir(type(target)):
            is_method = callable(getattr(type(target), name, None))
            if is_method and not name.startswith("_") and name not in ("check_cache", "mark", "rewind", "tap"):
                setattr(target, name, self.timed(getattr(target, name)))
        pair.drafter = Timed(pair.drafter, self.timed(pair.drafter))

    def timed(self, function):
        def call(*args, **options):
            if self._depth:
                return function(*args, **options)
            self._depth += 1
            start = time.thread_time()
            try:
                return function(*args, **options)
            finally:
                self._depth -= 1
                self.seconds += time.thread_time() - start

        return call


class Timed:
    """A drafter whose calls are timed."""

    def __init__(self, drafter, call):
        self._drafter, self._call = drafter, call

    def __getattr__(self, name):
        return getattr(self._drafter, name)

    def __call__(self, *args, **options):
        return self._call(*args, **options)


class Sampler(threading.Thread):
    """Looks again and again whether a thread sleeps, and where.

    A line of the package counts once a round.  Lines that send work may sleep, too, while more is queued than MLX takes;
    they count apart.
    """

    def __init__(self, package):
        super().__init__(daemon=True)
        self.places = Counter()
        self._seen = set()
        self._watched = threading.get_ident()
        self._state = Path(f"/proc/self/task/{threading.get_native_id()}/stat")
        self._package = str(package)
        self._ended = threading.Event()

    def run(self):
        while not self._ended.is_set():
            time.sleep(SAMPLE)
            if self._state.read_text().rpartition(")")[2].split()[0] == "S":
                self._seen.add(self.place())

    def place(self):
        """The line of the package that the watched thread is in; None outside of it."""
        frame = sys._current_frames()[self._watched]
        while frame is not None and not frame.f_code.co_filename.startswith(self._package):
            frame = frame.f_back
        return frame and (frame.f_code.co_filename, frame.f_lineno)

    def next_round(self):
        self.places.update(self._seen - {None})
        self._seen = set()

    def stop(self, rounds):
        """Waits a round, and {place: how often a round}."""
        self._ended.set()
        self.join()
        waits = 0.0
        places = {}
        for (file, number), count in self.places.most_common():
            sends = "async_eval" in linecache.getline(file, number)
            waits += 0 if sends else count / rounds
            name = f"{file.removeprefix(self._package + os.sep)}:{number}{' (sends)' if sends else ''}"
            places[name] = count / rounds
        return waits, places


def load_host_time():
    """This checkout's host_time.py, beside whatever version of the package is measured."""
    spec = importlib.util.spec_from_file_location("host_time", ROOT / "mlx_ddtree" / "benchmarking" / "host_time.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["host_time"] = module
    spec.loader.exec_module(module)
    return module


def measure(package, folder, args):
    """{method: {column: milliseconds, or waits, a round}} by the package that this process imports."""
    from mlx_ddtree import load, stream_generate  # noqa: PLC0415  # isort: skip  (before MLX, for its BLAS)
    import mlx.core as mx  # noqa: PLC0415
    from mlx_lm.generate import generation_stream  # noqa: PLC0415

    pair = load(str(folder / "target"), str(folder / "drafter"))
    streams = {
        name: lambda name=name: stream_generate(pair, PROMPT, 4 * args.rounds + STEADY, **options_of(name))
        for name in args.methods
    }
    host_time = load_host_time()
    clock = host_time.HostClock([mx.default_stream(mx.default_device()), generation_stream])
    evals = Evals(mx, clock.threads, host_time.ran)
    for start in streams.values():
        take(start(), args.rounds)  # measures the pair, and warms up
    found = {name: defaultdict(list) for name in streams}
    for _ in range(args.repeats):
        for name, start in streams.items():
            spent, blocked, rounds = timed_rounds(start(), args.rounds, clock, evals)
            figures = {"wall": spent.wall, "main": spent.main, "blocked": blocked}
            figures |= {"exposed": evals.outside, "sending": evals.inside}
            for column, seconds in figures.items():
                found[name][column].append(1e3 * seconds / rounds)
    graphs = Graphs(pair)
    for name, start in streams.items():
        stream = start()
        take(stream, STEADY)
        graphs.seconds = 0.0
        rounds = take(stream, args.rounds)
        found[name]["graph"].append(1e3 * graphs.seconds / rounds)
    results = {name: {column: median(values) for column, values in figures.items()} for name, figures in found.items()}
    for name, start in streams.items():
        stream = start()
        take(stream, STEADY)
        sampler = Sampler(package)
        sampler.start()
        rounds = 0
        while rounds < args.rounds and take(stream, 1):
            sampler.next_round()
            rounds += 1
        results[name]["waits"], results[name]["places"] = sampler.stop(rounds)
    return results


def take(stream, count):
    """Go on for so many rounds; returns how many there were."""
    return sum(1 for _ in zip(range(count), stream, strict=False))


def timed_rounds(stream, count, clock, evals):
    """The clock's difference over steady rounds, the seconds in which this thread slept, and the number of rounds."""
    take(stream, STEADY)
    evals.start()
    start, awake = clock.now(), scheduled()
    rounds = take(stream, count)
    spent, awake = clock.now() - start, scheduled() - awake
    return spent, spent.wall - awake, rounds


def scheduled():
    """Seconds in which this thread ran or was ready to."""
    running, ready, _ = Path(f"/proc/self/task/{threading.get_native_id()}/schedstat").read_text().split()
    return (int(running) + int(ready)) * 1e-9


# ---------------------------------------------------------------- several packages


def measure_elsewhere(package, folder, args):
    """`measure` in a process that imports this package."""
    command = [sys.executable, __file__, str(package), "--here", str(folder), "--rounds", str(args.rounds)]
    command += ["--repeats", str(args.repeats), "--methods", *args.methods]
    paths = os.pathsep.join([str(package.parent), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": paths}
    done = subprocess.run(command, env=environment, cwd=package.parent, stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def show(layers, name, results, args):
    for method, figures in results.items():
        cells = "".join(f"{figures[c]:>9.2f}" if c in figures else f"{'-':>9}" for c in COLUMNS)
        print(f"{layers:>6}  {method:<10}{cells}  {name}", flush=True)
        if args.verbose:
            for place, count in figures["places"].items():
                print(f"{'':>8}{count:5.2f} {place}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("packages", metavar="PACKAGE", type=Path, nargs="*", default=[ROOT / "mlx_ddtree"])
    parser.add_argument("--layers", type=int, nargs="+", default=[10, 36, 64], help="of the targets")
    parser.add_argument("--methods", nargs="+", default=list(METHODS))
    parser.add_argument("--rounds", type=int, default=24, help="of each answer")
    parser.add_argument("--repeats", type=int, default=3, help="answers by each method; their median counts")
    parser.add_argument("--verbose", action="store_true", help="where the host waits")
    parser.add_argument("--here", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    packages = [package if package.name == "mlx_ddtree" else package / "mlx_ddtree" for package in args.packages]
    packages = [package.resolve() for package in packages]
    if args.here:
        print(json.dumps(measure(packages[0], args.here, args)))
        return
    print(f"{'layers':>6}  {'method':<10}" + "".join(f"{column:>9}" for column in COLUMNS) + "  package")
    for layers in args.layers:
        with tempfile.TemporaryDirectory() as folder:
            save_pair(Path(folder), layers)
            for package in packages:
                show(layers, package.parent.name, measure_elsewhere(package, Path(folder), args), args)


if __name__ == "__main__":
    main()
