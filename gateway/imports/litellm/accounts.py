"""A LiteLLM deployment's account at its vendor: address, key, headers and timeouts, as a provider of ours."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from gateway.imports.base import Draft, Section, plain
from gateway.imports.litellm.vendors import VENDORS, Vendor, preset

RETRIES_MAX = 10
_VARIABLE = "os.environ/"
_PASSED = {"organization": "OpenAI-Organization"}
_SERVED = "where it is served, without a / at its end"
NO_KEYS = frozenset(
    {"none", "empty", "dummy", "fake", "fake-key", "anything", "not-needed", "no-key", "sk-no-key-required"}
)
"""What people write where a server wants no key."""
_AWS = ("aws_access_key_id", "aws_secret_access_key", "aws_session_token")


def filled(draft: Draft, value: object, kind: str, what: str) -> str:
    """A value of theirs as one of ours: `os.environ/NAME` becomes `${NAME}`."""
    text = str(value)
    if text.startswith(_VARIABLE):
        return draft.variable(text.removeprefix(_VARIABLE), kind, what)
    return text.replace("${", "$${")


def secret(section: Section, name: str, variable: str, what: str, kind: str = "secret") -> str:
    """A reference to the secret under `name`, which is never copied; one in clear has to go into a variable."""
    value = section.take(name)
    if value is None:
        return section.draft.variable(variable, kind, what)
    if str(value).startswith(_VARIABLE):
        return filled(section.draft, value, kind, what)
    reference = section.draft.replaced(str(value), variable, kind, what)
    section.note(name, f"stands there in clear and was not copied; set it as {reference.strip('${}')}")
    return reference


@dataclass(slots=True)
class Accounts:
    """Providers by what makes them differ; each is written once."""

    draft: Draft
    timeouts: dict[str, Any]
    retries: int | None
    shapes: dict[str, dict[str, Any]] = field(default_factory=dict)
    vendors: dict[str, list[str]] = field(default_factory=dict)  # LiteLLM's provider to providers of ours

    def provider(self, params: Section, vendor: str, model: str) -> str | None:
        """The id of the provider that these parameters describe; None, with a note, where there can be none."""
        known = VENDORS[vendor]
        shape: dict[str, Any] = {}
        if named := preset(vendor, model):
            shape["preset"] = named
        base_url = self._base_url(params, known)
        if base_url is None and named in {"", "azure-deployments", "azure-foundry"}:
            params.draft.note(params.path, f"a model of {vendor} needs its api_base; left out")
            return None
        elsewhere = bool(base_url) and vendor == "openai" and "api.openai.com" not in str(base_url)
        if elsewhere or not named:
            shape = {"dialect": "openai"}  # somebody else's server, which is not known to do as OpenAI does
        if base_url:
            shape["base_url"] = base_url
        if key := self._key(params, vendor, known, str(base_url) if elsewhere or not named else ""):
            shape["api_key"] = key
        options = self._options(params, vendor)
        if options:
            shape["options"] = options
        if headers := self._headers(params):
            shape["headers"] = headers
        self._patience(params, shape)
        return self._named(vendor, shape)

    def _base_url(self, params: Section, known: Vendor) -> str | None:
        for name in ("api_base", "base_url", "aws_bedrock_runtime_endpoint"):
            if name in params:
                url = filled(params.draft, params.take(name), "url", _SERVED).rstrip("/")
                url = re.sub(r"/(chat/completions|messages|v1beta)$", "", url)
                return url + ("" if url.endswith(known.suffix) else known.suffix)
        if known.base:
            return params.draft.variable(known.base, "url", _SERVED) + known.suffix
        return None

    def _key(self, params: Section, vendor: str, known: Vendor, elsewhere: str) -> str:
        """A reference to its key; "" where there is none or its cloud finds it.  No vendor's key goes elsewhere."""
        if vendor in {"bedrock", "bedrock_converse"} and "api_key" not in params:
            if any(name in params for name in _AWS):
                params.draft.note(params.path, "AWS keys are read from AWS_ACCESS_KEY_ID and the like, or a role")
            for name in (*_AWS, "aws_profile_name"):
                params.take(name)
            return ""
        if vendor.startswith("vertex_ai"):
            words = "is read from GOOGLE_APPLICATION_CREDENTIALS, or the machine's own account"
            params.note("vertex_credentials", words)
            return ""
        keyless = elsewhere or not known.key
        if ("api_key" not in params and keyless) or str(params.value.get("api_key", "")).lower() in NO_KEYS:
            params.take("api_key")
            return ""
        stem = known.key or f"{vendor.upper().replace('-', '_')}_API_KEY"
        if elsewhere:
            host = elsewhere.partition("://")[2].partition("/")[0] or elsewhere
            stem = re.sub(r"[^A-Z0-9]+", "_", f"{host.upper()}_API_KEY").strip("_")
        return secret(params, "api_key", stem, f"the key at {vendor}")

    def _options(self, params: Section, vendor: str) -> dict[str, Any]:
        options: dict[str, Any] = {}
        draft = params.draft
        if vendor in {"bedrock", "bedrock_converse"}:
            if "api_key" not in params:
                options["credentials"] = "aws"
            if "aws_region_name" in params:
                options["region"] = filled(draft, params.take("aws_region_name"), "word", "the AWS region")
        if vendor.startswith("vertex_ai"):
            for theirs, ours in (("vertex_project", "project"), ("vertex_location", "location")):
                if theirs in params:
                    options[ours] = filled(draft, params.take(theirs), "word", f"the Google Cloud {ours}")
            options.setdefault("project", draft.variable("VERTEXAI_PROJECT", "word", "the Google Cloud project"))
        if "api_version" in params:
            version = filled(draft, params.take("api_version"), "word", "Azure's api-version")
            if vendor.startswith("azure"):
                options["query"] = {"api-version": version}
        return options

    def _headers(self, params: Section) -> dict[str, str]:
        found: dict[str, str] = {}
        for name in ("extra_headers", "headers", "default_headers"):
            section = params.section(name)
            for header in list(section.value):
                variable = re.sub(r"[^A-Z0-9]", "_", header.upper())
                told = f"the header {header}"
                if re.search(r"auth|key|token|secret|cookie", header, re.IGNORECASE):
                    found[header] = secret(section, header, variable, told)
                else:
                    found[header] = filled(params.draft, section.take(header), "word", told)
        for theirs, ours in _PASSED.items():
            if theirs in params:
                found[ours] = filled(params.draft, params.take(theirs), "word", f"the header {ours}")
        return found

    def _patience(self, params: Section, shape: dict[str, Any]) -> None:
        if self.timeouts:
            shape["timeouts"] = self.timeouts
        stated = [retries for name in ("max_retries", "num_retries") if (retries := params.number(name)) is not None]
        if stated or self.retries is not None:
            shape["retries_max"] = min(int(stated[0]) if stated else self.retries or 0, RETRIES_MAX)

    def _named(self, vendor: str, shape: dict[str, Any]) -> str:
        for id_ in self.vendors.get(vendor, ()):
            if self.shapes[id_] == shape:
                return id_
        stem = re.sub(r"[^A-Za-z0-9._-]", "-", vendor)
        number = len(self.vendors.get(vendor, ())) + 1
        id_ = stem if number == 1 else f"{stem}-{number}"
        self.vendors.setdefault(vendor, []).append(id_)
        self.shapes[id_] = shape
        return id_


def patience(section: Section, total: str = "timeout") -> dict[str, Any]:
    """Timeouts of ours: `timeout` for a whole call, `stream_timeout` to the first byte of a stream."""
    found: dict[str, Decimal | None] = {
        "total_s": section.number(total),
        "first_byte_s": section.number("stream_timeout"),
    }
    return {name: plain(value) for name, value in found.items() if value}
