"""Which of our presets a LiteLLM provider is, and where LiteLLM looks for its key.

Source: LiteLLM's documentation of providers and of its proxy's settings, read in November 2026.
"""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Vendor:
    """One prefix of LiteLLM's model names."""

    preset: str  # "": any server that speaks OpenAI's format, at an address of its own
    key: str = ""  # the variable its key is read from where the configuration names none
    base: str = ""  # the variable of its address, the same
    suffix: str = ""  # what our base_url has and theirs has not


_OPENAI_LIKE = Vendor("")
VENDORS = {
    "ai21_chat": _OPENAI_LIKE,
    "anthropic": Vendor("anthropic", "ANTHROPIC_API_KEY"),
    "azure": Vendor("azure-deployments", "AZURE_API_KEY", "AZURE_API_BASE", "/openai"),
    "azure_ai": Vendor("azure-foundry", "AZURE_AI_API_KEY", "AZURE_AI_API_BASE"),
    "bedrock": Vendor("bedrock"),
    "bedrock_converse": Vendor("bedrock"),
    "cerebras": Vendor("cerebras", "CEREBRAS_API_KEY"),
    "cohere": Vendor("cohere", "COHERE_API_KEY"),
    "cohere_chat": Vendor("cohere", "COHERE_API_KEY"),
    "custom_openai": _OPENAI_LIKE,
    "deepinfra": Vendor("deepinfra", "DEEPINFRA_API_KEY"),
    "deepseek": Vendor("deepseek", "DEEPSEEK_API_KEY"),
    "fireworks_ai": Vendor("fireworks", "FIREWORKS_AI_API_KEY"),
    "gemini": Vendor("gemini", "GEMINI_API_KEY"),
    "groq": Vendor("groq", "GROQ_API_KEY"),
    "hosted_vllm": Vendor("vllm", base="HOSTED_VLLM_API_BASE"),
    "huggingface": Vendor("huggingface", "HUGGINGFACE_API_KEY"),
    "litellm_proxy": Vendor("", "LITELLM_PROXY_API_KEY", "LITELLM_PROXY_API_BASE"),
    "llamafile": Vendor("llamacpp", base="LLAMAFILE_API_BASE"),
    "lm_studio": Vendor("lmstudio", base="LM_STUDIO_API_BASE"),
    "mistral": Vendor("mistral", "MISTRAL_API_KEY"),
    "moonshot": Vendor("moonshot", "MOONSHOT_API_KEY"),
    "nvidia_nim": Vendor("nvidia_nim", "NVIDIA_NIM_API_KEY"),
    "ollama": Vendor("ollama-native"),
    "ollama_chat": Vendor("ollama-native"),
    "openai": Vendor("openai", "OPENAI_API_KEY"),
    "openai_like": _OPENAI_LIKE,
    "openrouter": Vendor("openrouter", "OPENROUTER_API_KEY"),
    "perplexity": Vendor("perplexity", "PERPLEXITYAI_API_KEY"),
    "sambanova": Vendor("sambanova", "SAMBANOVA_API_KEY"),
    "text-completion-openai": Vendor("openai", "OPENAI_API_KEY"),
    "together_ai": Vendor("together", "TOGETHERAI_API_KEY"),
    "vercel_ai_gateway": Vendor("vercel", "VERCEL_AI_GATEWAY_API_KEY"),
    "vertex_ai": Vendor("vertex"),
    "vertex_ai_beta": Vendor("vertex"),
    "vllm": Vendor("vllm"),
    "xai": Vendor("xai", "XAI_API_KEY"),
    "zai": Vendor("zai", "ZAI_API_KEY"),
}
_BARE = (
    (re.compile(r"claude"), "anthropic"),
    (
        re.compile(
            r"(ft:)?(gpt|chatgpt|o\d|text-embedding|text-moderation|omni|dall-e|whisper|tts|davinci|babbage|codex)"
        ),
        "openai",
    ),
    (re.compile(r"gemini"), "vertex_ai"),
    (re.compile(r"(command|embed-|rerank)"), "cohere"),
    (re.compile(r"(mistral|ministral|codestral|magistral|pixtral|devstral)"), "mistral"),
    (re.compile(r"(us|eu|apac|global)\.(anthropic|amazon|meta)\.|(anthropic|amazon|meta)\."), "bedrock"),
    (re.compile(r"deepseek"), "deepseek"),
    (re.compile(r"grok"), "xai"),
)
_WAYS = {
    "openai": ("responses", "chat"),
    "azure": ("responses", "o_series", "gpt5_series", "chat"),
    "bedrock": ("converse", "invoke"),
}
"""Parts of a name that say how LiteLLM talks to the vendor, which our dialects decide for themselves."""


def split(model: str, said: str, base_url: bool) -> tuple[str, str]:
    """LiteLLM's provider and the model's name at it; the provider is "" where it cannot be told.

    `said`: custom_llm_provider; `base_url`: whether an address is given, which makes an unknown name OpenAI-like.
    """
    prefix, slash, rest = model.partition("/")
    vendor, name = (said, model) if said else (prefix, rest) if slash and prefix in VENDORS else ("", model)
    if not vendor:
        vendor = next((known for pattern, known in _BARE if pattern.match(name)), "custom_openai" if base_url else "")
    way, slash, rest = name.partition("/")
    while slash and way in _WAYS.get(vendor, ()):
        name = rest
        way, slash, rest = name.partition("/")
    return vendor, name


def preset(vendor: str, model: str) -> str:
    """The preset for the model: Claude has its own on Vertex AI."""
    found = VENDORS[vendor].preset
    return "vertex-anthropic" if found == "vertex" and "claude" in model else found
