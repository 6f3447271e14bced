"""What clients ask, said to Gemini: in which words, and what is refused by which name."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from gateway.dialects.gemini import Gemini
from gateway.dialects.gemini_codec.schema import openapi
from gateway.dialects.signatures import sealed
from gateway.errors import InvalidRequest, UnsupportedField
from gateway.plan import Step
from gateway.types import Capability, Deployment, Estimate, Format, Key, Provider, Request, Tenant

DIALECT = Gemini()
NEW, OLD, OLDEST = "gemini-3-flash-preview", "gemini-2.5-flash", "gemini-2.0-flash"
IMAGE = "data:image/png;base64,AAAA"
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "additionalProperties": False}
STUDIO = "https://generativelanguage.googleapis.com/v1beta"
VERTEX = "https://aiplatform.googleapis.com/v1"


def step(model: str = NEW, *, base: str = STUDIO, key: str = "k", able: Any = None, **more: Any) -> Step:
    options = more.pop("options", {})
    able = frozenset(Capability) if able is None else able
    provider = Provider("google", "gemini", base, key, options=options)
    return Step(
        Deployment("d", provider, model, capabilities=able), Estimate(7, 9), more.pop("cap", 9000), 50, 0.0, **more
    )


def called(format_: Format, body: dict[str, Any], at: Step, *, drop: bool = False) -> Any:
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}], **body}
    stream = bool(body.get("stream"))
    request = Request("r1", format_, b"", body, "m", stream, 1_700_000_000.0, Key("k", "acme", "test", b""))
    return DIALECT.encode(request, at, Tenant("acme", drop_params=drop))


def chat(body: dict[str, Any], model: str = NEW, *, drop: bool = False, **more: Any) -> Any:
    return orjson.loads(called(Format.CHAT, body, step(model, **more), drop=drop).body)


def message(body: dict[str, Any], model: str = NEW, *, drop: bool = False, **more: Any) -> Any:
    return orjson.loads(called(Format.MESSAGES, {"max_tokens": 50, **body}, step(model, **more), drop=drop).body)


def function(name: str = "f", **more: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, **more}}


def call(id_: str, name: str = "f", arguments: str = '{"a":1}') -> dict[str, Any]:
    return {"id": id_, "type": "function", "function": {"name": name, "arguments": arguments}}


def config(body: dict[str, Any], model: str = NEW, **more: Any) -> Any:
    return chat(body, model, **more)["generationConfig"]


class TestAddress:
    def test_ai_studio_is_asked_at_the_model_with_the_key_in_its_own_header(self) -> None:
        sent = called(Format.CHAT, {}, step("gemini-2.5-flash", key="secret"))
        assert sent.url == f"{STUDIO}/models/gemini-2.5-flash:generateContent"
        assert sent.headers["x-goog-api-key"] == "secret"
        assert "authorization" not in sent.headers

    def test_a_stream_is_asked_for_as_events(self) -> None:
        sent = called(Format.CHAT, {"stream": True}, step("gemini-2.5-flash"))
        assert sent.url == f"{STUDIO}/models/gemini-2.5-flash:streamGenerateContent?alt=sse"
        assert "stream" not in orjson.loads(sent.body)

    def test_a_model_that_names_its_place_keeps_it(self) -> None:
        assert called(Format.CHAT, {}, step("tunedModels/x-1")).url == f"{STUDIO}/tunedModels/x-1:generateContent"

    @pytest.mark.parametrize(
        ("location", "start"),
        [
            (None, "https://aiplatform.googleapis.com/v1/projects/p/locations/global"),
            ("us-central1", "https://us-central1-aiplatform.googleapis.com/v1/projects/p/locations/us-central1"),
            ("eu", "https://aiplatform.eu.rep.googleapis.com/v1/projects/p/locations/eu"),
        ],
    )
    def test_vertex_is_asked_where_the_project_is(self, location: str | None, start: str) -> None:
        options = {"path": "/publishers/google/models", "project": "p"} | ({"location": location} if location else {})
        sent = called(Format.CHAT, {}, step("gemini-2.5-pro", base=VERTEX, key="", options=options))
        assert sent.url == f"{start}/publishers/google/models/gemini-2.5-pro:generateContent"
        assert not {"x-goog-api-key", "authorization"} & set(sent.headers)

    def test_a_tier_is_a_field_on_ai_studio_and_a_header_on_vertex(self) -> None:
        assert chat({"service_tier": "flex"}, service_tier="flex")["serviceTier"] == "flex"
        sent = called(Format.CHAT, {}, step(base=VERTEX, options={"project": "p"}, service_tier="priority"))
        assert sent.headers["X-Vertex-AI-LLM-Shared-Request-Type"] == "priority"
        assert "serviceTier" not in orjson.loads(sent.body)


class TestContents:
    def test_system_text_is_an_instruction_wherever_it_stands(self) -> None:
        messages = [
            {"role": "system", "content": "One."},
            {"role": "user", "content": "hi"},
            {"role": "system", "content": "Two."},
            {"role": "assistant", "content": "ho"},
            {"role": "user", "content": "go on"},
        ]
        body = chat({"messages": messages})
        assert body["systemInstruction"] == {"parts": [{"text": "One."}, {"text": "Two."}]}
        assert body["contents"] == [
            {"role": "user", "parts": [{"text": "hi"}]},
            {"role": "model", "parts": [{"text": "ho"}]},
            {"role": "user", "parts": [{"text": "go on"}]},
        ]

    def test_a_system_prompt_alone_is_the_users_turn(self) -> None:
        body = chat({"messages": [{"role": "system", "content": "Greet me."}]})
        assert body["contents"] == [{"role": "user", "parts": [{"text": "Greet me."}]}]
        assert "systemInstruction" not in body

    def test_nothing_to_answer_is_refused(self) -> None:
        with pytest.raises(InvalidRequest):
            chat({"messages": [{"role": "user", "content": ""}]})

    def test_images_files_and_sound_are_data_or_addresses(self) -> None:
        parts = [
            {"type": "text", "text": "Look"},
            {"type": "image_url", "image_url": {"url": IMAGE, "detail": "low"}},
            {"type": "image_url", "image_url": {"url": "https://example.org/a.PNG?x=1"}},
            {"type": "input_audio", "input_audio": {"data": "BBBB", "format": "wav"}},
            {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,JVBERg=="}},
            {"type": "file", "file": {"file_data": "data:text/plain;base64,aGVsbG8="}},
        ]
        assert chat({"messages": [{"role": "user", "content": parts}]})["contents"][0]["parts"] == [
            {"text": "Look"},
            {"inlineData": {"mimeType": "image/png", "data": "AAAA"}},
            {"fileData": {"mimeType": "image/png", "fileUri": "https://example.org/a.PNG?x=1"}},
            {"inlineData": {"mimeType": "audio/wav", "data": "BBBB"}},
            {"inlineData": {"mimeType": "application/pdf", "data": "JVBERg=="}},
            {"text": "hello"},
        ]

    def test_another_providers_file_is_refused_by_its_path(self) -> None:
        content = [{"type": "file", "file": {"file_id": "file-1"}}, {"type": "text", "text": "?"}]
        with pytest.raises(UnsupportedField) as refused:
            chat({"messages": [{"role": "user", "content": content}]})
        assert refused.value.param == "messages[0].content[0].file"
        own = [{"type": "file", "file": {"file_id": f"{STUDIO}/files/abc"}}]
        [part] = chat({"messages": [{"role": "user", "content": own}]})["contents"][0]["parts"]
        assert part["fileData"]["fileUri"] == f"{STUDIO}/files/abc"

    def test_citations_that_were_asked_for_are_refused_by_name(self) -> None:
        source = {"type": "text", "media_type": "text/plain", "data": "facts"}
        block = {"type": "document", "source": source, "citations": {"enabled": True}}
        asked = {"messages": [{"role": "user", "content": [block]}]}
        with pytest.raises(UnsupportedField) as refused:
            message(asked)
        assert refused.value.param == "messages[0].content[0].citations"
        assert message(asked, drop=True)["contents"][0]["parts"] == [{"text": "facts"}]


class TestToolLoop:
    MESSAGES = (
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "Calling", "tool_calls": [call("c1"), call("c2", "g", "")]},
        {"role": "tool", "tool_call_id": "c2", "content": '{"n": 2}'},
        {"role": "tool", "tool_call_id": "c1", "content": "[1]"},
        {"role": "user", "content": "And?"},
    )

    def test_results_stand_in_the_order_of_their_calls_and_name_their_tool(self) -> None:
        assert chat({"messages": list(self.MESSAGES)}, OLD)["contents"][1:] == [
            {
                "role": "model",
                "parts": [
                    {"text": "Calling"},
                    {"functionCall": {"id": "c1", "name": "f", "args": {"a": 1}}},
                    {"functionCall": {"id": "c2", "name": "g", "args": {}}},
                ],
            },
            {
                "role": "user",
                "parts": [
                    {"functionResponse": {"id": "c1", "name": "f", "response": {"result": "[1]"}}},
                    {"functionResponse": {"id": "c2", "name": "g", "response": {"n": 2}}},
                    {"text": "And?"},
                ],
            },
        ]

    def test_vertex_is_told_no_ids(self) -> None:
        sent = called(Format.CHAT, {"messages": list(self.MESSAGES)}, step(OLD, base=VERTEX, options={"project": "p"}))
        assert b'"id"' not in sent.body

    def test_a_failure_is_an_error(self) -> None:
        result = {"type": "tool_result", "tool_use_id": "t1", "content": '{"a": 1}', "is_error": True}
        use = {"type": "tool_use", "id": "t1", "name": "f", "input": {}}
        turns = [{"role": "user", "content": "x"}, {"role": "assistant", "content": [use]}]
        body = message({"messages": [*turns, {"role": "user", "content": [result]}]})
        assert body["contents"][2]["parts"][0]["functionResponse"]["response"] == {"error": '{"a": 1}'}

    @pytest.mark.parametrize("model", [NEW, OLD])
    def test_an_image_in_a_result_stands_in_it_where_the_model_knows_that(self, model: str) -> None:
        source = {"type": "base64", "media_type": "image/png", "data": "AAAA"}
        content = [{"type": "text", "text": "seen"}, {"type": "image", "source": source}]
        result = {"type": "tool_result", "tool_use_id": "t1", "content": content}
        use = {"type": "tool_use", "id": "t1", "name": "f", "input": {}}
        turns = [{"role": "user", "content": "x"}, {"role": "assistant", "content": [use]}]
        parts = message({"messages": [*turns, {"role": "user", "content": [result]}]}, model)["contents"][2]["parts"]
        inline = {"inlineData": {"mimeType": "image/png", "data": "AAAA"}}
        response: dict[str, Any] = {"id": "t1", "name": "f", "response": {"result": "seen"}}
        if model == NEW:
            assert parts == [{"functionResponse": response | {"parts": [inline]}}]
        else:
            assert parts == [{"functionResponse": response}, {"text": "From the result of f:"}, inline]

    def test_a_result_without_its_call_is_refused(self) -> None:
        with pytest.raises(InvalidRequest) as refused:
            chat({"messages": [{"role": "tool", "tool_call_id": "c9", "content": "x"}]})
        assert refused.value.param == "messages[0].content"

    def test_arguments_that_are_no_object_are_refused_by_their_path(self) -> None:
        with pytest.raises(InvalidRequest) as refused:
            chat({"messages": [{"role": "assistant", "content": None, "tool_calls": [call("c1", "f", "[1]")]}]})
        assert refused.value.param == "messages[0].tool_calls[0].function.arguments"

    def test_the_first_of_parallel_calls_has_a_stand_in_for_a_signature_where_the_model_insists(self) -> None:
        parts = chat({"messages": list(self.MESSAGES)}, NEW)["contents"][1]["parts"]
        assert [part.get("thoughtSignature") for part in parts] == [None, "skip_thought_signature_validator", None]
        assert not any(
            "thoughtSignature" in part for part in chat({"messages": list(self.MESSAGES)}, OLD)["contents"][1]["parts"]
        )


class TestSignatures:
    def test_each_comes_back_to_the_part_that_had_it(self) -> None:
        blocks = [
            {"type": "thinking", "thinking": "hm", "signature": sealed("c0", "AA==")},
            {"type": "thinking", "thinking": "", "signature": sealed("t", "BB:=")},
            {"type": "thinking", "thinking": "own", "signature": sealed("r", "CC==")},
        ]
        said = {"role": "assistant", "content": "Calling", "thinking_blocks": blocks, "tool_calls": [call("c1")]}
        turns = [{"role": "user", "content": "x"}, said, {"role": "tool", "tool_call_id": "c1", "content": "1"}]
        assert chat({"messages": turns})["contents"][1]["parts"] == [
            {"text": "hm", "thought": True},
            {"text": "own", "thought": True, "thoughtSignature": "CC=="},
            {"text": "Calling", "thoughtSignature": "BB:="},
            {"functionCall": {"id": "c1", "name": "f", "args": {"a": 1}}, "thoughtSignature": "AA=="},
        ]

    def test_the_thoughts_of_others_are_left_out(self) -> None:
        thought = {"type": "thinking", "thinking": "hm", "signature": "claudes"}
        turns = [
            {"role": "user", "content": "x"},
            {
                "role": "assistant",
                "content": [thought, {"type": "redacted_thinking", "data": "x"}, {"type": "text", "text": "y"}],
            },
            {"role": "user", "content": "z"},
        ]
        assert message({"messages": turns})["contents"][1]["parts"] == [{"text": "y"}]


class TestTools:
    def test_schemas_go_as_they_are_to_models_that_know_them(self) -> None:
        tools = [
            function(description="d", parameters=SCHEMA, strict=True),
            function("g", parameters={"type": "object"}),
        ]
        [declared] = chat({"tools": tools})["tools"]
        assert declared["functionDeclarations"] == [
            {"name": "f", "description": "d", "parametersJsonSchema": SCHEMA},
            {"name": "g"},
        ]
        [declared] = chat({"tools": tools}, OLDEST)["tools"]
        assert declared["functionDeclarations"][0]["parameters"] == {
            "type": "object",
            "properties": {"a": {"type": "integer"}},
        }

    @pytest.mark.parametrize(
        ("choice", "told"),
        [
            ("auto", {"mode": "AUTO"}),
            ("none", {"mode": "NONE"}),
            ("required", {"mode": "ANY"}),
            ({"type": "function", "function": {"name": "g"}}, {"mode": "ANY", "allowedFunctionNames": ["g"]}),
        ],
    )
    def test_a_choice_is_a_mode(self, choice: Any, told: Any) -> None:
        body = chat({"tools": [function(), function("g")], "tool_choice": choice})
        assert body["toolConfig"] == {"functionCallingConfig": told}

    def test_tools_that_are_not_allowed_are_not_declared(self) -> None:
        allowed = {"mode": "required", "tools": [{"type": "function", "function": {"name": "g"}}]}
        choice = {"type": "allowed_tools", "allowed_tools": allowed}
        body = chat({"tools": [function(), function("g")], "tool_choice": choice})
        assert body["tools"] == [{"functionDeclarations": [{"name": "g"}]}]
        assert body["toolConfig"] == {"functionCallingConfig": {"mode": "ANY"}}

    def test_one_call_at_a_time_cannot_be_asked(self) -> None:
        asked = {"tools": [function()], "parallel_tool_calls": False}
        with pytest.raises(UnsupportedField) as refused:
            chat(asked)
        assert refused.value.param == "parallel_tool_calls"
        assert "tools" in chat(asked, drop=True)
        assert "tools" in chat(asked | {"parallel_tool_calls": True})

    def test_a_tool_of_another_format_is_refused_by_its_path(self) -> None:
        with pytest.raises(UnsupportedField) as refused:
            message({"tools": [{"type": "web_search_20250305", "name": "web_search"}]})
        assert refused.value.param == "tools[0]"


class TestConfig:
    def test_sampling_is_said_in_googles_words(self) -> None:
        sampling = {
            "temperature": 0.5,
            "top_p": 0.9,
            "top_k": 7,
            "seed": 3,
            "presence_penalty": 0.1,
            "frequency_penalty": 0.2,
            "logprobs": True,
            "top_logprobs": 2,
            "n": 2,
            "stop": ["a", "b"],
            "user": "u7",
        }
        assert config(sampling, cap=77) == {
            "maxOutputTokens": 77,
            "temperature": 0.5,
            "topP": 0.9,
            "topK": 7,
            "seed": 3,
            "presencePenalty": 0.1,
            "frequencyPenalty": 0.2,
            "responseLogprobs": True,
            "logprobs": 2,
            "candidateCount": 2,
            "stopSequences": ["a", "b"],
        }

    @pytest.mark.parametrize(
        ("field", "value"),
        [("logit_bias", {"1": 5}), ("stop", list("abcdef")), ("modalities", ["text", "audio"])],
    )
    def test_what_gemini_cannot_say_is_refused_by_name_or_dropped(self, field: str, value: Any) -> None:
        with pytest.raises(UnsupportedField) as refused:
            config({field: value})
        assert refused.value.param == field
        told = config({field: value}, drop=True)
        assert len(told.get("stopSequences", ())) in (0, 5)

    def test_a_schema_goes_as_it_is_or_in_the_subset(self) -> None:
        asked = {"response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA}}}
        assert config(asked)["responseJsonSchema"] == SCHEMA
        old = config(asked, OLDEST)
        assert old["responseSchema"] == {"type": "object", "properties": {"a": {"type": "integer"}}}
        assert config({"response_format": {"type": "json_object"}}) == {
            "maxOutputTokens": 9000,
            "responseMimeType": "application/json",
        }

    def test_a_schema_beside_tools_is_refused_where_the_model_takes_only_one(self) -> None:
        asked = {"response_format": {"type": "json_object"}, "tools": [function()]}
        assert config(asked)["responseMimeType"] == "application/json"
        with pytest.raises(UnsupportedField) as refused:
            config(asked, OLD)
        assert refused.value.param == "response_format"

    @pytest.mark.parametrize(
        ("model", "effort", "told"),
        [
            ("gemini-2.5-flash", "low", {"includeThoughts": True, "thinkingBudget": 2048}),
            ("gemini-2.5-flash", "none", {"thinkingBudget": 0}),
            ("gemini-2.5-flash", "max", {"includeThoughts": True, "thinkingBudget": 8999}),
            ("gemini-2.5-pro", "none", {"thinkingBudget": 128}),
            ("gemini-3-pro-preview", "none", {"thinkingLevel": "low"}),
            ("gemini-3-pro-preview", "medium", {"includeThoughts": True, "thinkingLevel": "low"}),
            ("gemini-3.1-pro-preview", "medium", {"includeThoughts": True, "thinkingLevel": "medium"}),
            ("gemini-3-flash-preview", "none", {"thinkingLevel": "minimal"}),
            ("gemini-3-flash-preview", "xhigh", {"includeThoughts": True, "thinkingLevel": "high"}),
            ("gemini-4-hydrogen", "max", {"includeThoughts": True, "thinkingLevel": "xhigh"}),
            ("gemini-flash-latest", "minimal", {"includeThoughts": True, "thinkingLevel": "low"}),
        ],
    )
    def test_effort_is_said_as_the_generation_understands_it(self, model: str, effort: str, told: Any) -> None:
        assert config({"reasoning_effort": effort}, model)["thinkingConfig"] == told
        assert config({}, model, effort=effort)["thinkingConfig"] == told

    def test_a_budget_of_the_clients_holds(self) -> None:
        asked = {"thinking": {"type": "enabled", "budget_tokens": 3000}}
        assert message(asked, OLD)["generationConfig"]["thinkingConfig"]["thinkingBudget"] == 3000
        assert message(asked, NEW)["generationConfig"]["thinkingConfig"]["thinkingLevel"] == "low"
        small = message({"thinking": {"type": "enabled", "budget_tokens": 30}}, "gemini-2.5-flash-lite")
        assert small["generationConfig"]["thinkingConfig"]["thinkingBudget"] == 512

    def test_thinking_that_is_asked_for_without_a_measure_is_the_models_to_measure(self) -> None:
        asked = {"thinking": {"type": "adaptive"}}
        assert message(asked, OLD)["generationConfig"]["thinkingConfig"] == {
            "includeThoughts": True,
            "thinkingBudget": -1,
        }
        assert message(asked, NEW)["generationConfig"]["thinkingConfig"] == {"includeThoughts": True}

    def test_a_model_that_does_not_think_is_not_asked_to(self) -> None:
        with pytest.raises(UnsupportedField) as refused:
            config({"reasoning_effort": "high"}, OLDEST)
        assert refused.value.param == "reasoning_effort"
        assert "thinkingConfig" not in config({"reasoning_effort": "none"}, OLDEST)
        assert "thinkingConfig" not in config({}, OLDEST, effort="high")


class TestSubset:
    def test_references_are_written_out_and_null_is_a_property(self) -> None:
        schema = {
            "$schema": "x",
            "type": "object",
            "properties": {
                "one": {"$ref": "#/$defs/Item", "description": "the one"},
                "maybe": {"anyOf": [{"$ref": "#/$defs/Item"}, {"type": "null"}]},
                "list": {"type": "array", "items": {"type": ["string", "null"], "format": "uuid"}, "minItems": 1},
                "kind": {"const": "x"},
                "either": {"oneOf": [{"type": "string"}, {"type": "integer"}]},
                "mixed": {"type": ["string", "integer"]},
            },
            "required": ["one"],
            "additionalProperties": False,
            "$defs": {"Item": {"type": "object", "properties": {"n": {"type": "integer", "format": "int32"}}}},
        }
        item = {"type": "object", "properties": {"n": {"type": "integer", "format": "int32"}}}
        assert openapi(schema) == {
            "type": "object",
            "properties": {
                "one": {"description": "the one"} | item,
                "maybe": {"nullable": True} | item,
                "list": {"type": "array", "items": {"type": "string", "nullable": True}, "minItems": 1},
                "kind": {"type": "string", "enum": ["x"], "format": "enum"},
                "either": {"anyOf": [{"type": "string"}, {"type": "integer"}]},
                "mixed": {"anyOf": [{"type": "string"}, {"type": "integer"}]},
            },
            "required": ["one"],
        }

    def test_a_schema_that_refers_to_itself_ends(self) -> None:
        node = {"type": "object", "properties": {"next": {"$ref": "#/$defs/Node"}}}
        assert len(str(openapi({"$ref": "#/$defs/Node", "$defs": {"Node": node}}))) < 3000

    def test_a_reference_to_nowhere_allows_anything(self) -> None:
        assert openapi({"type": "object", "properties": {"a": {"$ref": "#/$defs/Gone"}}})["properties"] == {"a": {}}
