"""Who is good at what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from gateway.plan import Context, Plan
from gateway.types import Request


@dataclass(frozen=True, slots=True)
class Skill:
    """Puts those first who are good at the task.

    `tasks`    a task, or a shell pattern of tasks (`mmlu/*`), to deployment ids in order; the first match counts.
    `default`  deployment ids, in order, for a task that none matches.
    `tag`      the request's tag that says the task; without it the task is what a policy before found (`difficulty`).

    Those not named follow in the order they had; the healthy always come before the others.
    """

    tasks: Mapping[str, Sequence[str]]
    default: Sequence[str] = ()
    tag: str = "skill"

    def __post_init__(self) -> None:
        for task, ids in (*self.tasks.items(), ("default", self.default)):
            if isinstance(ids, str):
                raise ValueError(f"skill: {task} must be a list of deployment ids")  # noqa: TRY004 - as every wrong option
        if not self.tasks:
            raise ValueError("skill: tasks must name at least one task")

    def apply(self, plan: Plan, request: Request, context: Context) -> Plan:  # noqa: ARG002 - the protocol's signature
        """The same steps, the skilled first."""
        task = request.tags.get(self.tag) or plan.task
        named = next((ids for pattern, ids in self.tasks.items() if task and fnmatchcase(task, pattern)), self.default)
        if not named or not plan.steps:
            return plan
        places = {id_: place for place, id_ in enumerate(named)}
        last = len(places)
        ordered = plan.sorted(lambda step: (not step.healthy, places.get(step.deployment.id, last)))
        return ordered.because(f"skill: {task or 'any task'}")
