"""``blockrate queue``: runs that wait for one another."""

from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from blockrate.cli.inputs import read_config, with_gpus
from blockrate.cli.options import AsJson, ConfigName, GpuCount, Settings, Unsupported
from blockrate.cli.screen import say, show, show_json
from blockrate.core.errors import ConfigError
from blockrate.core.plain_text import visible

if TYPE_CHECKING:
    from blockrate.run.queue import Job, Queue

app = typer.Typer(
    no_args_is_help=True,
    help="Train several configs one after another; the app works at the same list.",
)
JobName = Annotated[
    str,
    typer.Argument(metavar="JOB", help="Its number in the list, its name, or its id."),
]
NewName = Annotated[str, typer.Argument(metavar="NAME", help="The new name.")]
OwnName = Annotated[
    str, typer.Option("--name", metavar="NAME", help="What the job is called.")
]


@app.command()
def add(
    config: ConfigName,
    settings: Settings = None,
    name: OwnName = "",
    gpus: GpuCount = None,
    ignore_unsupported: Unsupported = False,
) -> None:
    """Put a config at the end of the list, as it is now, with a run folder of its own."""
    from blockrate.cli.data_report import refuse_bad_folders
    from blockrate.config.named_files import check_start_file
    from blockrate.config.plan import make_plan

    read, source = read_config(config, with_gpus(settings, gpus), ignore_unsupported)
    for warning in make_plan(read).warnings:
        say(f"warning: {warning}")
    check_start_file(read)
    refuse_bad_folders(read, config)
    queue = _queue()
    job = queue.add(read, source, name=name)
    number = [other.id for other in queue.jobs()].index(job.id) + 1
    show(f"{number}  {job.name}: will train in {job.run}, and write {job.result}")
    if not queue.has_worker:
        say("`blockrate queue run` trains what waits.")


@app.command(name="list")
def list_jobs(as_json: AsJson = False) -> None:
    """Show every job with its state, in order."""
    from dataclasses import asdict

    queue = _queue()
    jobs = queue.seen()
    for folder in queue.unreadable():
        say(f"warning: {folder} holds a job that cannot be read; it is passed over.")
    if as_json:
        facts: dict[str, Any] = {"jobs": [asdict(job) for job in jobs]}
        facts |= {"paused": queue.paused, "at_work": queue.has_worker}
        return show_json(facts)
    if not jobs:
        say("No jobs. `blockrate queue add CONFIG` puts one here.")
    show(*(visible(_line(number, job)) for number, job in enumerate(jobs, 1)))
    if queue.paused:
        say(f"Paused: {queue.paused} `blockrate queue run` goes on.")
    return None


@app.command()
def run() -> None:
    """Train every job that waits, one after another. Ctrl-C stops with a save; the same command goes on."""
    from blockrate.cli.show import STOPPED
    from blockrate.run.queue_worker import work

    queue = _queue()
    if queue.next_job() is None:
        return say("No job waits. `blockrate queue add CONFIG` puts one there.")
    queue.resume()
    if not work(queue, say, shown=True):
        problem = "another process works at the queue"
        raise ConfigError(
            "queue", problem, "`blockrate queue list` shows how far it is."
        )
    left = queue.next_job()
    if left:
        raise typer.Exit(left.exit_code or STOPPED)
    return None


@app.command()
def remove(job: JobName) -> None:
    """Move a job to the queue's trash; its run folder and its result stay."""
    queue = _queue()
    found = queue.find(job)
    show(f"{found.name} is now in {queue.remove(found)}")


@app.command()
def move(
    job: JobName,
    where: Annotated[
        Literal["up", "down", "first", "last"],
        typer.Argument(help="One place earlier or later, or to an end."),
    ],
) -> None:
    """Move a job earlier or later in the list."""
    queue = _queue()
    far = len(queue.jobs())
    by = {"up": -1, "down": 1, "first": -far, "last": far}[where]
    queue.move(queue.find(job), by)
    list_jobs()


@app.command()
def rename(job: JobName, name: NewName) -> None:
    """Give a job another name; its run folder keeps its own."""
    queue = _queue()
    queue.rename(queue.find(job), name)


@app.command()
def clone(job: JobName) -> None:
    """Put the config of a job at the end once more, with a run folder of its own."""
    queue = _queue()
    made = queue.clone(queue.find(job))
    show(f"{made.name}: will train in {made.run}, and write {made.result}")


@app.command()
def again(job: JobName) -> None:
    """Let a job that failed, or was stopped, wait for its turn again: it goes on where it was."""
    queue = _queue()
    queue.again(queue.find(job))


def _queue() -> "Queue":
    from blockrate.run.queue import Queue

    return Queue()


def _line(number: int, job: "Job") -> str:
    words = f"  {job.sentence}" if job.sentence else ""
    return f"{number:3}  {job.state:8} {job.name}  {job.run}{words}"
