"""What a simulated account says: its models, its key, its credits, and what a generation has cost."""

from __future__ import annotations

from typing import Any

from rxrouter.testing.reply import Reply

_COST_OF_A_BYTE = 1e-6  # credits, for each that went out
_BYTES_OF_A_TOKEN = 256  # about a chunk


def _model(name: str, title: str, context: int, prompt: str, completion: str) -> dict[str, Any]:
    return {
        "id": f"simulated/{name}",
        "canonical_slug": f"simulated/{name}",
        "name": f"Simulated: {title}",
        "created": 1763820000,
        "description": "It says what it was told to say.",
        "context_length": context,
        "architecture": {
            "modality": "text->text",
            "input_modalities": ["text"],
            "output_modalities": ["text"],
            "tokenizer": "Other",
            "instruct_type": None,
        },
        "pricing": {"prompt": prompt, "completion": completion, "request": "0", "image": "0"},
        "top_provider": {"context_length": context, "max_completion_tokens": 4096, "is_moderated": False},
        "per_request_limits": None,
        "supported_parameters": ["max_tokens", "temperature", "tools"],
    }


_CATALOGUE = [
    _model("storyteller", "Storyteller", 32_768, "0.00000015", "0.0000006"),
    _model("storyteller:free", "Storyteller (free)", 8_192, "0", "0"),
    _model("thinker", "Thinker", 1_000_000, "0.00000125", "0.00001"),
    _model("auto", "whichever fits", 1_000_000, "-1", "-1"),
]
_KEY = {
    "label": "sk-or-v1-sim...ted",
    "limit": 10,
    "limit_remaining": 7.5,
    "limit_reset": None,
    "usage": 2.5,
    "usage_daily": 0.5,
    "usage_weekly": 1,
    "usage_monthly": 2.5,
    "byok_usage": 0,
    "include_byok_in_limit": False,
    "is_free_tier": False,
    "is_management_key": False,
    "expires_at": None,
    "rate_limit": {"requests": -1, "interval": "10s"},
}
_PAGES = {"models": _CATALOGUE, "key": _KEY, "credits": {"total_credits": 25, "total_usage": 2.5}}


def page(path: str) -> Reply:
    """What the path's last part names: models, key or credits; 404 for the rest."""
    said = _PAGES.get(path.rpartition("/")[2])
    return Reply.error(404, "Not Found") if said is None else Reply.json({"data": said})


def bill(generation_id: str, sent_bytes: int, *, cancelled: bool) -> Reply:
    """What the books say of a generation that is over."""
    cost = sent_bytes * _COST_OF_A_BYTE
    tokens = sent_bytes // _BYTES_OF_A_TOKEN
    return Reply.json(
        {
            "data": {
                "id": generation_id,
                "upstream_id": None,
                "model": "simulated/storyteller",
                "provider_name": "Simulator",
                "created_at": "2025-11-22T14:00:00.000Z",
                "streamed": True,
                "cancelled": cancelled,
                "finish_reason": None if cancelled else "stop",
                "native_finish_reason": None if cancelled else "stop",
                "total_cost": cost,
                "usage": cost,
                "is_byok": False,
                "tokens_prompt": 12,
                "tokens_completion": tokens,
                "native_tokens_prompt": 12,
                "native_tokens_completion": tokens,
                "native_tokens_reasoning": 0,
                "latency": 20,
                "generation_time": 100,
                "provider_responses": [{"provider_name": "Simulator", "status": 200, "latency": 20}],
            }
        }
    )
