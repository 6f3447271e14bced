"""Providers, deployments and routes of a configuration as nouns, and what can be wrong with them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from gateway import plugins
from gateway.configuration import price_list, rates
from gateway.configuration.payers import Payers, hard
from gateway.configuration.presets import Known
from gateway.configuration.provider_schema import ProviderKeyShape, ProviderShape, TlsShape
from gateway.configuration.schema import DeploymentShape, File, PresetShape, PriceShape, RouteShape
from gateway.credentials import certificates
from gateway.document import Document, Path, Problem, nearest
from gateway.money import PROVIDER_TOOLS
from gateway.provider import KEY_HERE, ProviderKey, Tls
from gateway.shadows.payer import asides
from gateway.tenants import permits
from gateway.types import OUTPUT_BUCKETS, Bucket, Capability, Deployment, Key, Limit, Provider, Route, Tenant, Timeouts

REPORTED, CALCULATED = "reported", "calculated"
WITHOUT_URL = frozenset({"simulated"})
"""Dialects whose provider is inside this process."""
BESIDE_TOKENS = frozenset({*PROVIDER_TOOLS, "cache_token_hour"})
"""Fees of what only comes beside tokens: alone they are no price."""
FILE_S, COMMAND_S = 1.0, 300.0
"""How long what a file or a command says is a provider's key holds, unless stated."""


@dataclass(slots=True)
class Places:
    """Reads who is called and what may be asked for, noting problems in the document."""

    document: Document
    known: Known
    absent: Mapping[str, str]  # providers left out, and why
    now: float
    providers: dict[str, Provider] = field(default_factory=dict)
    deployments: dict[str, Deployment] = field(default_factory=dict)
    routes: dict[str, Route] = field(default_factory=dict)
    notices: list[str] = field(default_factory=list)
    changes: list[float] = field(default_factory=list)  # when prices in use change
    _books: dict[str, str | None] = field(default_factory=dict)  # provider -> price list; None: find it by URL
    _left_out: set[str] = field(default_factory=set)  # deployments of absent providers
    _lines: dict[str, Path] = field(default_factory=dict)  # deployment -> where it stands

    def read(self, file: File) -> None:
        """Adds everything in the file, in the order of dependence."""
        for id_, provider in file.providers.items():
            self._provider(id_, provider, file.server.workers)
        for index, deployment in enumerate(file.deployments):
            self._deployment(deployment, file.providers, ("deployments", index))
        for id_, route in file.routes.items():
            self._route(id_, route)
        for id_, found in self.routes.items():
            self._asides(found, file.routes, ("routes", id_, "policies"))

    @property
    def stated(self) -> Collection[str]:
        """The deployments of the file, those of absent providers too."""
        return self._lines

    def names(self) -> frozenset[str]:
        """Everything a tenant may be permitted, and what would be if its provider were here."""
        models = (deployment.upstream_model for deployment in self.deployments.values())
        return frozenset((*self.deployments, *self.routes, *models, *self._left_out))

    def check_prices(self, payers: Payers, everyone: Sequence[Limit]) -> None:
        """A hard budget cannot cover a deployment without a price: notes each that a capped tenant can reach."""
        unpriced = [deployment for deployment in self.deployments.values() if not priced(deployment)]
        for deployment in unpriced:
            for tenant in payers.tenants:
                keys = [key for key in payers.keys if key.tenant == tenant.id]
                capped = hard((*everyone, *tenant.limits, *(limit for key in keys for limit in key.limits)))
                way = self._way(deployment, tenant, keys) if capped else None
                if way:
                    self.document.problem(
                        self._lines[deployment.id],
                        f"deployment {deployment.id!r} has no known price, but tenant {tenant.id!r}, which has a hard "
                        f"budget, can reach it as {way!r}; state its price, or keep it out of the tenant's models",
                    )

    def _provider(self, id_: str, shape: ProviderShape, workers: int) -> None:
        place: Path = ("providers", id_)
        preset = self._preset(id_, shape)
        if shape.preset is not None and shape.preset not in self.known.providers:
            hint = nearest(shape.preset, self.known.providers)
            self.document.problem((*place, "preset"), f"there is no preset {shape.preset!r}{hint}")
            return
        dialect = shape.dialect or (preset.dialect if preset else "")
        if not dialect:
            hint = nearest(id_, self.known.providers)
            self.document.problem(place, f"needs a dialect ({', '.join(plugins.dialect_names())}) or a preset{hint}")
        elif dialect not in plugins.dialect_names():
            hint = nearest(dialect, plugins.dialect_names())
            self.document.problem((*place, "dialect"), f"there is no dialect {dialect!r}{hint}")
        base_url = shape.base_url or (preset.base_url if preset else "")
        if id_ in self.absent:
            self.notices.append(f"provider {id_!r} is left out: {self.absent[id_]}")
            return
        if not base_url and dialect not in WITHOUT_URL:
            self.document.problem(place, "needs a base_url such as https://api.example.com/v1")
        options = {**(preset.options if preset else {}), **shape.options}
        if options.get("cost", CALCULATED) not in (REPORTED, CALCULATED):
            self.document.problem((*place, "options", "cost"), f"must be {REPORTED} or {CALCULATED}")
        if "credentials" in options and (wrong := plugins.credentials_problem(str(options["credentials"]))):
            self.document.problem((*place, "options", "credentials"), str(wrong))
        self._books[id_] = shape.prices if shape.prices is not None else preset.prices if preset else None
        self.providers[id_] = Provider(
            id=id_,
            dialect=dialect,
            base_url=base_url,
            api_key=KEY_HERE if shape.keys else shape.api_key or "",
            headers={**(preset.headers if preset else {}), **shape.headers},
            options=options,
            timeouts=Timeouts(**shape.timeouts.model_dump()),
            max_connections=shape.max_connections,
            retries_max=shape.retries_max,
            keys=self._keys(shape, place, workers),
            connection_age_max_s=shape.connection_age_max_s,
            proxy=shape.proxy or "",
            tls=self._tls(shape.tls, (*place, "tls")),
        )

    def _tls(self, shape: TlsShape, place: Path) -> Tls:
        """Its files, which are there and fit."""
        if shape == TlsShape():
            return Tls()
        if shape.key_file and not shape.cert_file:
            self.document.problem((*place, "key_file"), "needs the cert_file that it is the key of")
            return Tls()
        try:
            found = certificates.stamped(shape.ca_file, shape.cert_file, shape.key_file)
            certificates.context(found)
        except OSError as error:
            self.document.problem(place, f"cannot be used: {error}")
            return Tls()
        return found

    def _keys(self, shape: ProviderShape, place: Path, workers: int) -> tuple[ProviderKey, ...]:
        """Its keys; what one may do in a minute is shared by the workers of this machine."""
        if shape.keys and shape.api_key is not None:
            self.document.problem((*place, "keys"), "takes the place of api_key; give one of them")
        for name, count in Counter(key.name for key in shape.keys).items():
            if count > 1:
                self.document.problem((*place, "keys"), f"{name!r} stands {count} times; names must differ")
        for index, key in enumerate(shape.keys):
            if sum(map(bool, (key.key, key.file, key.command))) != 1:
                self.document.problem((*place, "keys", index), "needs one of key, file and command")
        return tuple(_key(key, workers) for key in shape.keys)

    def _preset(self, id_: str, shape: ProviderShape) -> PresetShape | None:
        """The named preset, or the one called like the provider if nothing the provider says contradicts it."""
        if shape.preset is not None:
            return self.known.providers.get(shape.preset)
        preset = self.known.providers.get(id_)
        if preset is None or shape.dialect not in {None, preset.dialect}:
            return None
        return preset if shape.base_url in {None, "", preset.base_url} else None

    def _deployment(self, shape: DeploymentShape, providers: Mapping[str, ProviderShape], place: Path) -> None:
        if shape.id in self._lines:
            self.document.problem((*place, "id"), f"deployment {shape.id!r} stands twice; ids must differ")
            return
        self._lines[shape.id] = place
        if shape.provider not in providers:
            hint = nearest(shape.provider, providers)
            self.document.problem((*place, "provider"), f"there is no provider {shape.provider!r}{hint}")
        self._price_is_whole(shape.price, (*place, "price"))
        if shape.provider in self.absent:
            self._left_out |= {shape.id, shape.upstream_model}
            self.notices.append(f"deployment {shape.id!r} is left out with its provider {shape.provider!r}")
        if provider := self.providers.get(shape.provider):
            self.deployments[shape.id] = self._placed(shape, provider)

    def _placed(self, shape: DeploymentShape, provider: Provider) -> Deployment:
        listing = self._listing(shape, provider)
        facts = rates.facts(shape.upstream_model, self.known.models)
        if listing.changes_at is not None:
            self.changes.append(listing.changes_at)
        lacks = facts.lacks if facts else []
        able = set(Capability) - set(lacks) if shape.capabilities is None else shape.capabilities
        return Deployment(
            id=shape.id,
            provider=provider,
            upstream_model=shape.upstream_model,
            price=rates.own(listing.price, shape.price),
            context_max=shape.context_max or (facts and facts.context_max) or listing.context_max,
            output_max=shape.output_max or (facts.output_max if facts else None),
            capabilities=frozenset(able),
            region=shape.region,
            quality=shape.quality,
            tokens_per_second=shape.tokens_per_second,
            tokenizer=shape.tokenizer or "",
            cache_writes=bool(facts and facts.cache_writes) if shape.cache_writes is None else shape.cache_writes,
            tier=shape.tier,
            timeouts=Timeouts(**shape.timeouts.model_dump()) if shape.timeouts else None,
            concurrency_max=shape.concurrency_max,
            as_reported=provider.options.get("cost") == REPORTED and shape.price is None,
        )

    def _listing(self, shape: DeploymentShape, provider: Provider) -> rates.Listing:
        """What the price list says; it is not even loaded for a provider that has none."""
        book = self._books[provider.id]
        if book is None:
            book = "" if provider.dialect in WITHOUT_URL else price_list.book_of(provider.base_url)
        try:
            return rates.listing(book, shape.upstream_model, self.now, self.known.prices, self.known.price_list)
        except (OSError, ValueError) as error:
            self._no_list(error)
            return rates.Listing()

    def _no_list(self, error: Exception) -> None:
        """A list that cannot be read is an error, said once: to go on with an older one, or none, would be a guess."""
        wrong = Problem(str(self.known.price_list), 1, "", f"no price list: {' '.join(str(error).split())[:300]}")
        if wrong.file not in {problem.file for problem in self.document.problems}:
            self.document.problems.append(wrong)

    def _price_is_whole(self, price: PriceShape | None, place: Path) -> None:
        if price is None:
            return
        if (price.per_hour is None) != (price.tokens_per_second is None):
            self.document.problem(place, "a price per hour needs both per_hour and tokens_per_second")
        if len({tier.marginal for tier in price.tiers}) > 1:
            self.document.problem((*place, "tiers"), "the tiers of one price must be all marginal or all not")
        for index, tier in enumerate(price.tiers):
            outs = [bucket for bucket in OUTPUT_BUCKETS if getattr(tier, bucket) is not None]
            if tier.marginal and outs:
                where = (*place, "tiers", index, min(outs))
                self.document.problem(where, "a marginal tier prices the input above it; leave the output out")

    def _route(self, id_: str, shape: RouteShape) -> None:
        place: Path = ("routes", id_)
        if id_ in self._lines:
            self.document.problem(place, f"{id_!r} is both a route and a deployment; their names must differ")
        for name, count in Counter(shape.candidates).items():
            if count > 1:
                self.document.problem((*place, "candidates"), f"{name!r} stands {count} times; once is enough")
        for index, name in enumerate(shape.candidates):
            self._named(name, (*place, "candidates", index))
        if shape.baseline is not None:
            self._named(shape.baseline, (*place, "baseline"))
        policies = [
            made
            for index, entry in enumerate(shape.policies)
            for name, options in entry.items()
            for made in self._policy(name, options or {}, (*place, "policies", index, name))
        ]
        candidates = tuple(name for name in shape.candidates if name in self.deployments)
        if not candidates:
            self.notices.append(f"route {id_!r} is left out: none of its candidates is here")
            self._left_out.add(id_)
            return
        if gone := [name for name in shape.candidates if name in self._left_out]:
            self.notices.append(f"route {id_!r} goes without {', '.join(gone)}")
        baseline = shape.baseline if shape.baseline in self.deployments else None
        if baseline is None and shape.baseline is not None:
            self.notices.append(f"route {id_!r} has no baseline: {shape.baseline} is left out")
        declines = frozenset(shape.failover_on)
        self.routes[id_] = Route(id_, candidates, tuple(policies), baseline, shape.timeout_s, declines)

    def _named(self, deployment: str, place: Path) -> None:
        if deployment not in self._lines:
            hint = nearest(deployment, self._lines)
            self.document.problem(place, f"there is no deployment {deployment!r}{hint}")

    def _asides(self, route: Route, routes: Mapping[str, RouteShape], place: Path) -> None:
        """Who else is asked must be here, and one is enough: a route has one budget for it."""
        found = asides(route.policies)
        if len(found) > 1:
            self.document.problem(place, "only one policy of a route may ask another plan beside")
        known = (*self._lines, *routes, *(deployment.upstream_model for deployment in self.deployments.values()))
        for name in {name for aside in found for name in (aside.model, aside.llm) if name and name not in known}:
            self.document.problem(place, f"there is no route or deployment {name!r}{nearest(name, known)}")

    def _policy(self, name: str, options: Mapping[str, object], place: Path) -> list[object]:
        made = plugins.policy_or_problems(name, options)
        if not isinstance(made, list):
            return [made]
        for error in made:
            self.document.problem(place if error.option is None else (*place, error.option), str(error))
        return []

    def _way(self, deployment: Deployment, tenant: Tenant, keys: Iterable[Key]) -> str | None:
        """A name by which the tenant can ask for the deployment."""
        asked = [deployment.id, *(route.id for route in self.routes.values() if deployment.id in route.candidates)]
        serving = [other for other in self.deployments.values() if other.upstream_model == deployment.upstream_model]
        if len(serving) == 1:
            asked.append(deployment.upstream_model)
        anyone = Key("", tenant.id, "", b"")
        for name in asked:
            if any(permits(tenant, key, name) for key in list(keys) or [anyone]):
                return name
        return None


def _key(shape: ProviderKeyShape, workers: int) -> ProviderKey:
    requests, tokens = (
        None if each is None else max(1, each // workers)
        for each in (shape.requests_per_minute, shape.tokens_per_minute)
    )
    return ProviderKey(
        name=shape.name,
        value=shape.key or "",
        file=shape.file or "",
        command=tuple(shape.command),
        ttl_s=shape.ttl_s or (COMMAND_S if shape.command else FILE_S),
        timeout_s=shape.timeout_s,
        weight=shape.weight,
        requests_per_minute=requests,
        tokens_per_minute=tokens,
    )


def priced(deployment: Deployment) -> bool:
    """By tokens, or by the piece; what a request may use beyond that is looked at when it comes."""
    price = deployment.price
    return price.known and (Bucket.INPUT in price.rates or bool(price.fees.keys() - BESIDE_TOKENS))
