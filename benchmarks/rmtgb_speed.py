"""Speed of R-MTGB: beside the published algorithm on exact trees, and as tables grow.

    OMP_NUM_THREADS=1 python benchmarks/rmtgb_speed.py beside          # minutes
    OMP_NUM_THREADS=1 python benchmarks/rmtgb_speed.py beside --rounds 10 10 10 --repeats 1
    OMP_NUM_THREADS=1 python benchmarks/rmtgb_speed.py growth          # an hour on a slow core
    OMP_NUM_THREADS=1 python benchmarks/rmtgb_speed.py growth --sizes 10000:10 100000:100

`beside` trains both on the same rows with the same rounds and depth, one thread each, in turns in
one process: depth 1 as published, and depth 4. Data are scenario 4 of the random Fourier tasks, and
the school table (139 tasks) where it is there. `growth` trains every size in a process of its own
and tells its peak memory. Seconds are of the processor.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from functools import partial

import numpy as np
import pandas as pd
from rmtgb_reference import ReferenceRMTGB
from rmtgb_sets import DATA, Rows, read

from mtl_tabular.boosting import RMTGBRegressor
from mtl_tabular.data.fourier_tasks import FourierTasks

NAMES = ("shared_rounds", "group_rounds", "task_rounds")


def ours(rounds, depth):
    """The estimator, with so many rounds whatever happens."""
    return RMTGBRegressor(
        **dict(zip(NAMES, rounds, strict=True)),
        max_depth=depth,
        early_stopping=False,
        n_jobs=1,
        random_state=0,
    )


def timed(call):
    """Result and seconds of the processor."""
    start = time.process_time()
    result = call()
    return result, time.process_time() - start


def fourier(rows, tasks, features):
    """About so many rows for training and for scoring."""
    source = FourierTasks(
        4, num_tasks=tasks, num_outliers=tasks // 5, num_features=features, waves=100
    )

    def part(name):
        frame = source.draw(round(rows / tasks), name)
        return Rows(frame.iloc[:, :-2].to_numpy(), frame["y"].to_numpy(), frame["task"].to_numpy())

    return part("train"), part("test")


def beside(args):
    """Both algorithms on the same rows."""
    tables = {"Fourier": fourier(args.rows, args.tasks, args.features)}
    if (args.data / "school_data.csv.gz").is_file():
        school = read(args.data, "school")
        chosen = np.random.default_rng(0).permutation(len(school))[: args.rows]
        tables["school"] = school.at(np.sort(chosen)), school
    print("| table | rows | features | tasks | depth | reference, s | ours, s | times faster |"
          " reference RMSE | our RMSE |")  # fmt: skip
    print("|" + "---|" * 10)
    for name, (train, test) in tables.items():
        for depth in (1, 4):
            seconds, errors = ([], []), [0.0, 0.0]
            for _ in range(args.repeats):
                rivals = (ReferenceRMTGB(args.rounds, max_depth=depth), ours(args.rounds, depth))
                for i, model in enumerate(rivals):
                    _, spent = timed(partial(model.fit, train.x, train.y, task=train.task))
                    seconds[i].append(spent)
                    predicted = model.predict(test.x, task=test.task)
                    errors[i] = float(np.sqrt(np.mean((predicted - test.y) ** 2)))
            slow, fast = (float(np.median(s)) for s in seconds)
            ratio = float(np.median(np.divide(*seconds)))
            cells = (name, f"{len(train):,}", train.x.shape[1], len(set(train.task)), depth)
            cells += (f"{slow:.2f}", f"{fast:.2f}", f"{ratio:.1f}", *(f"{e:.4f}" for e in errors))
            print(f"| {' | '.join(map(str, cells))} |", flush=True)
    if "school" in tables:
        print("\nRMSE of school is of training and other rows together.")


def growth(args):
    """Seconds and memory of ever larger tables."""
    print("| rows | tasks | making the table, s | fit, s | predict, s | memory before fit, GB |"
          " peak, GB | RMSE |")  # fmt: skip
    print("|" + "---|" * 8)
    for size in args.sizes:
        command = [sys.executable, __file__, "one", "--sizes", size]
        command += ["--rounds", *map(str, args.rounds), "--features", str(args.features)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            reason = done.stderr.strip().splitlines()[-1:] or [f"signal {-done.returncode}"]
            print(f"| {size.replace(':', ' | ')} | {reason[0]} |", flush=True)
            continue
        cells = json.loads(done.stdout.strip().splitlines()[-1])
        print(f"| {' | '.join(cells)} |", flush=True)


def one(args):
    """A single size, in this process."""
    rows, tasks = (int(number) for number in args.sizes[0].split(":"))
    source = FourierTasks(
        4, num_tasks=tasks, num_outliers=tasks // 5, num_features=args.features, waves=50
    )
    frame, made = timed(lambda: source.draw(rows // tasks))
    before = memory()
    columns = list(frame.columns[:-2])
    model, spent = timed(
        lambda: ours(args.rounds, 4).fit(frame[columns], frame["y"], task=frame["task"])
    )
    peak = memory()
    test = pd.DataFrame(source.draw(max(1, 50_000 // tasks), "test"))
    predicted, asked = timed(lambda: model.predict(test[columns], task=test["task"]))
    error = float(np.sqrt(np.mean((predicted - test["y"]) ** 2)))
    numbers = [f"{made:.1f}", f"{spent:.1f}", f"{asked:.1f}", f"{before:.2f}", f"{peak:.2f}"]
    print(json.dumps([f"{len(frame):,}", f"{tasks:,}", *numbers, f"{error:.4f}"]))


def memory():
    """Peak resident memory of this process so far, GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def main():
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("verb", choices=["beside", "growth", "one"])
    parser.add_argument("--rounds", type=int, nargs=3, default=None, help="of the three blocks")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--rows", type=int, default=15_000)
    parser.add_argument("--tasks", type=int, default=139)
    parser.add_argument("--features", type=int, default=None)
    parser.add_argument("--data", type=type(DATA), default=DATA, help="folder of the real tables")
    sizes = ["10000:10", "100000:100", "1000000:100", "1000000:1000", "5000000:1000"]
    parser.add_argument("--sizes", nargs="+", default=sizes, metavar="ROWS:TASKS")
    args = parser.parse_args()
    if args.verb == "beside":
        args.rounds, args.features = args.rounds or [50, 50, 50], args.features or 27
    else:
        args.rounds, args.features = args.rounds or [20, 20, 20], args.features or 5
    {"beside": beside, "growth": growth, "one": one}[args.verb](args)


if __name__ == "__main__":
    main()
