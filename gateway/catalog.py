"""What a client may ask for: routes and deployments, by every name they have.  Built once from the settings; frozen."""

from __future__ import annotations

import difflib
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field

from gateway.errors import UnknownModel
from gateway.settings import Settings
from gateway.types import Deployment, Route

_NAME_SHOWN_MAX = 100  # characters of a client's text that an error repeats or a search considers


@dataclass(frozen=True, slots=True)
class Catalog:
    """Deployments and routes by id, and the names that clients ask for."""

    deployments: Mapping[str, Deployment]
    routes: Mapping[str, Route]
    _targets: Mapping[str, tuple[Route | None, tuple[Deployment, ...]]] = field(repr=False)
    _ambiguous: Mapping[str, tuple[str, ...]] = field(repr=False)

    def resolve(self, name: str) -> tuple[Route | None, tuple[Deployment, ...]]:
        """The candidates that serve `name`, with their route if it names one.

        A name is a route, a deployment, or an upstream model that exactly one deployment serves, in this order.  Raises
        UnknownModel, which lists the nearest names.
        """
        found = self._targets.get(name)
        if found is None:
            raise UnknownModel(f"There is no model {name[:_NAME_SHOWN_MAX]!r}.{self.suggestion(name)}", param="model")
        return found

    def names(self) -> tuple[str, ...]:
        """Everything that can be asked for: routes, then deployments, then upstream models."""
        return tuple(self._targets)

    def nearest(self, name: str) -> tuple[str, ...]:
        """Up to three names near `name`, nearest first; the deployments that serve it if it stands for several."""
        if name in self._ambiguous:
            return self._ambiguous[name]
        return tuple(difflib.get_close_matches(name[:_NAME_SHOWN_MAX], self._targets, n=3, cutoff=0.5))

    def suggestion(self, name: str) -> str:
        """What to say after "there is no model NAME": a sentence that begins with a space, or nothing."""
        near = ", ".join(repr(other) for other in self.nearest(name))
        if name in self._ambiguous:
            return f" Several deployments serve it; ask for one of them: {near}."
        return f" Did you mean {near}?" if near else ""

    def baseline(self, route: Route | None) -> Deployment | None:
        """The deployment whose cost a route's savings are measured against."""
        return self.deployments[route.baseline] if route and route.baseline else None


def build(settings: Settings) -> Catalog:
    """The catalog of these settings; they are consistent, or `settings.load` would have refused them."""
    deployments, routes = settings.deployments, settings.routes
    serving: defaultdict[str, list[Deployment]] = defaultdict(list)
    for deployment in deployments.values():
        serving[deployment.upstream_model].append(deployment)
    targets: dict[str, tuple[Route | None, tuple[Deployment, ...]]] = {
        route.id: (route, tuple(deployments[candidate] for candidate in route.candidates)) for route in routes.values()
    }
    targets.update({id_: (None, (deployment,)) for id_, deployment in deployments.items()})
    for model, several in serving.items():
        if len(several) == 1:
            targets.setdefault(model, (None, (several[0],)))
    ambiguous = {
        model: tuple(deployment.id for deployment in several)
        for model, several in serving.items()
        if model not in targets
    }
    return Catalog(deployments, routes, targets, ambiguous)
