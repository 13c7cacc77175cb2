"""What Snakemake is told of a job, and where its planner needs help (docs/RERUNS.md)."""

# A plan of thousands of jobs keeps all it makes: looking for garbage every 700 objects costs a quarter of the planning.
gc.set_threshold(100_000, 20, 100)


class Parameter(str):
    """What a job gets as text; Snakemake records `repr` and runs the job again when it changes. Only for functions: it copies other parameters."""

    def __new__(cls, text, decides=""):
        value = super().__new__(cls, text)
        value.decides = decides
        return value

    def __repr__(self):
        return self.decides


def spec_json(spec):
    """The spec as the one parameter of a job: a change of what decides its result re-runs the job, nothing else does."""
    return Parameter(spec.model_dump_json(), deciding(spec))


def below(dag, direction, *jobs, stop=lambda job: False):
    """DAG.bfs that does not go on through inputs that are all `ancient`.

    Snakemake never looks at what lies below a job that runs, as it will run anyway; but below an `ancient` input it does not run, so that a change
    of its own is missed until the next run (snakemake issue 4166). tests/workflow/test_reruns.py fails where this is missing or no longer works.
    """
    queue, seen = list(jobs), set(jobs)
    for job in queue:
        if stop(job):
            continue
        yield job
        found = [
            other
            for other, files in direction[job].items()
            if other not in seen
            and not (
                direction is dag.depending and all(file.is_ancient for file in files)
            )
        ]
        queue.extend(found)
        seen.update(found)


DAG.bfs = below
