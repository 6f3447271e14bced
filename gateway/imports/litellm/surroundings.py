"""What is around the models: server, ledger, database, alerts, and what LiteLLM does that is not done here."""

from __future__ import annotations

from typing import Any

from gateway.imports.base import Section
from gateway.imports.litellm.accounts import filled, secret

NEEDLESS = {
    "cooldown_time": "a deployment that fails is left alone by a circuit breaker of ours",
    "allowed_fails": "a deployment that fails is left alone by a circuit breaker of ours",
    "allowed_fails_policy": "a deployment that fails is left alone by a circuit breaker of ours",
    "disable_cooldowns": "the circuit breaker cannot be turned off: a deployment that is down would slow every request",
    "retry_after": "a provider's own retry-after is kept",
    "retry_policy": "what is worth a retry is tried again `retries_max` times, on the same deployment, then the next",
    "model_group_retry_policy": "what is worth a retry is tried again `retries_max` times, whatever the group",
    "enable_pre_call_checks": "what does not fit a model's context is never sent to it",
    "routing_strategy_args": "are not carried over; see the policy's own options",
    "enable_tag_filtering": "tags route nothing here: make a route for each, and name it in the tenant's `models`",
    "tag_filtering_match_any": "tags route nothing here: make a route for each, and name it in the tenant's `models`",
}
CALLBACKS = "metrics are at /metrics, spend is in SQL, traces go out by OpenTelemetry; nothing else is called back"
ELSEWHERE = {
    "cache": "replies are not cached by this conversion",
    "cache_params": "replies are not cached by this conversion",
    "success_callback": CALLBACKS,
    "failure_callback": "errors are in the log, the metrics and the records; other callbacks are not called",
    "callbacks": CALLBACKS,
    "service_callback": "the ledger and the database have metrics of their own",
    "turn_off_message_logging": "messages are logged nowhere",
    "set_verbose": "is not carried over: the log has one line for each request",
    "json_logs": "the log is JSON",
    "default_team_settings": "is not carried over: make a tenant for each team",
    "default_internal_user_params": "is not carried over: a tenant's limits with `account: user` hold for each user",
    "telemetry": "nothing is sent anywhere",
}
GENERAL = {
    "database_url": "is LiteLLM's: records here go to TOLLGATE_DATABASE_URL or to a file, never to its tables",
    "store_model_in_db": "models stand in the file; tenants and keys may be in the database",
    "disable_spend_logs": "each request has its record",
    "custom_auth": "is not run: keys are the gateway's own",
    "enable_jwt_auth": "is not carried over: clients have keys",
    "background_health_checks": "health is learned from traffic",
    "health_check_interval": "health is learned from traffic",
    "pass_through_endpoints": "are not carried over",
    "alerting_threshold": "is not carried over: alerts are on money, model mix and retries",
    "allow_requests_on_db_unavailable": "keys and budgets need no SQL database while requests are served",
    "proxy_batch_write_at": "records are written as they come, in batches",
    "database_connection_pool_limit": "is not carried over",
}


def surroundings(top: Section, settings: Section, router: Section, general: Section, port: int) -> dict[str, Any]:
    """The sections of ours that are not about models or payers."""
    draft = top.draft
    found: dict[str, Any] = {"server": {"host": "0.0.0.0", "port": port}}  # noqa: S104 - where LiteLLM listens
    if megabytes := general.count("max_request_size_mb"):
        found["server"]["request_bytes_max"] = megabytes * 1024 * 1024
    found["redis"] = _redis(router)
    found["database"] = "${TOLLGATE_DATABASE_URL:-sqlite:///./tollgate.db}"
    found["admin_key"] = "${TOLLGATE_ADMIN_KEY:-}"  # null, and no admin API, while it is not set
    webhooks = []
    for kind in general.names("alerting"):
        if kind == "slack":
            webhooks.append({"url": draft.variable("SLACK_WEBHOOK_URL", "url", "where alerts go"), "kind": "slack"})
        elif kind == "webhook":
            webhooks.append({"url": draft.variable("WEBHOOK_URL", "url", "where alerts go")})
        else:
            general.note("alerting", f"alerts go to webhooks and Slack, not to {kind}")
    if webhooks:
        found["alerts"] = {"webhooks": webhooks}
    for section, told in ((router, NEEDLESS), (settings, ELSEWHERE), (settings, NEEDLESS), (general, GENERAL)):
        for name, words in told.items():
            section.note(name, words)
    for name in list(top.section("environment_variables").value):
        top.section("environment_variables").note(name, "was not copied: set it where the gateway starts")
    top.note("include", "names files that were not read: convert each")
    top.note("guardrails", "are not carried over")
    return found


def _redis(router: Section) -> str | None:
    """LiteLLM's Redis, if it has one of its own address: the ledger of several gateways."""
    draft = router.draft
    if "redis_url" in router:
        url = secret(router, "redis_url", "REDIS_URL", "Redis, as redis://...", kind="redis")
    elif "redis_host" in router:
        host = filled(draft, router.take("redis_host"), "word", "Redis' host")
        number = filled(draft, router.take("redis_port") or 6379, "number", "Redis' port")
        password = ""
        if "redis_password" in router:
            told = "the password of Redis, URL-encoded"
            password = f":{secret(router, 'redis_password', 'REDIS_PASSWORD', told, kind='word')}@"
        scheme = "rediss" if router.flag("redis_ssl") else "redis"
        url = f"{scheme}://{password}{host}:{number}/{router.take('redis_db') or 0}"
    else:
        return None
    path = (*router.path, "redis_url" if "redis_url" in router else "redis_host")
    draft.note(
        path,
        "holds the ledger of budgets here: it must never evict (maxmemory-policy noeviction) and should write to disk",
    )
    return url
