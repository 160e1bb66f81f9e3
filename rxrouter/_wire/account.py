"""What is said beside the streams: models and their prices, a generation's bill, the key, the credits, a receipt."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Literal, TypeVar

import msgspec
from msgspec import Struct

from rxrouter._errors import ProtocolError
from rxrouter._wire.chunk import Usage
from rxrouter._wire.json import Received, converted, without_nulls

T = TypeVar("T", bound=Received)

# The wire's names; nothing is required, and a field of the wrong type is as one that is not there (`raw` has it).


class Architecture(Struct, omit_defaults=True):
    """What a model takes and gives."""

    modality: str | None = None
    input_modalities: Sequence[str] = ()
    output_modalities: Sequence[str] = ()
    tokenizer: str | None = None
    instruct_type: str | None = None


class Pricing(Struct, omit_defaults=True):
    """Credits for one token, or for one of what the name says; -1 is a price that is only known afterwards."""

    prompt: float | None = None
    completion: float | None = None
    request: float | None = None
    image: float | None = None
    web_search: float | None = None
    internal_reasoning: float | None = None
    input_cache_read: float | None = None
    input_cache_write: float | None = None
    discount: float | None = None


class TopProvider(Struct, omit_defaults=True):
    """The limits of the provider that comes first."""

    context_length: int | None = None
    max_completion_tokens: int | None = None
    is_moderated: bool | None = None


class Model(Received, Struct, omit_defaults=True):
    """One model of the catalogue."""

    id: str | None = None
    canonical_slug: str | None = None
    name: str | None = None
    created: int | float | None = None  # Unix time in seconds
    description: str | None = None
    context_length: int | None = None  # tokens
    architecture: Architecture = msgspec.field(default_factory=Architecture)
    pricing: Pricing = msgspec.field(default_factory=Pricing)
    top_provider: TopProvider = msgspec.field(default_factory=TopProvider)
    per_request_limits: dict[str, Any] | None = None
    supported_parameters: Sequence[str] = ()
    default_parameters: dict[str, Any] | None = None
    supported_voices: Sequence[str] = ()
    reasoning: dict[str, Any] | None = None
    expiration_date: str | None = None
    hugging_face_id: str | None = None
    knowledge_cutoff: str | None = None
    alias_target: Any = None

    @property
    def free(self) -> bool:
        """Whether its words cost nothing, neither what you say nor what it says."""
        return self.pricing.prompt == 0 == self.pricing.completion


class Generation(Received, Struct, omit_defaults=True):
    """What OpenRouter's books say of one generation, however it ended; times are milliseconds, costs credits."""

    id: str | None = None
    upstream_id: str | None = None
    request_id: str | None = None
    session_id: str | None = None
    model: str | None = None
    provider_name: str | None = None
    created_at: str | None = None
    streamed: bool | None = None
    cancelled: bool | None = None
    finish_reason: str | None = None
    native_finish_reason: str | None = None
    total_cost: float | None = None
    usage: float | None = None
    upstream_inference_cost: float | None = None
    cache_discount: float | None = None
    is_byok: bool | None = None
    tokens_prompt: int | None = None  # counted alike for all models; what is billed are the native ones
    tokens_completion: int | None = None
    native_tokens_prompt: int | None = None
    native_tokens_completion: int | None = None
    native_tokens_reasoning: int | None = None
    native_tokens_cached: int | None = None
    native_tokens_completion_images: int | None = None
    num_media_prompt: int | None = None
    num_input_audio_prompt: int | None = None
    num_media_completion: int | None = None
    num_search_results: int | None = None
    num_fetches: int | None = None
    latency: float | None = None
    generation_time: float | None = None
    moderation_latency: float | None = None
    api_type: str | None = None
    router: str | None = None
    service_tier: str | None = None
    origin: str | None = None
    app_id: int | None = None
    external_user: str | None = None
    provider_responses: Sequence[dict[str, Any]] = ()


class Key(Received, Struct, omit_defaults=True):
    """What the key that is used may do, and has done; money is credits."""

    label: str | None = None  # a few of its characters
    limit: float | None = None  # None is no limit
    limit_remaining: float | None = None
    limit_reset: str | None = None
    usage: float | None = None
    usage_daily: float | None = None
    usage_weekly: float | None = None
    usage_monthly: float | None = None
    byok_usage: float | None = None
    byok_usage_daily: float | None = None
    byok_usage_weekly: float | None = None
    byok_usage_monthly: float | None = None
    include_byok_in_limit: bool | None = None
    is_free_tier: bool | None = None
    is_management_key: bool | None = None
    expires_at: str | None = None
    rate_limit: dict[str, Any] | None = None  # deprecated by OpenRouter


class Credits(Received, Struct, omit_defaults=True):
    """What was bought, and what of it was spent."""

    total_credits: float | None = None
    total_usage: float | None = None


class Receipt(Struct, frozen=True):
    """What one generation really cost, by the server's own word; never an estimate."""

    ended: str  # "completed", "cancelled", or the name of the error's class
    at: datetime  # when
    generation_id: str | None = None
    model: str | None = None
    provider: str | None = None
    cost: float | None = None  # credits; None where nobody said
    usage: Usage | None = None  # what the stream said
    generation: Generation | None = None  # what the look-up said; the native tokens are here
    error: str | None = None  # why there is no cost

    @property
    def status(self) -> Literal["exact", "unavailable"]:
        """Whether the cost is known."""
        return "unavailable" if self.cost is None else "exact"


class _Answer(Struct):
    data: msgspec.Raw


def answered(body: bytes, kind: type[T]) -> list[T]:
    """The values of an answer's `data`: the one, or each of a list.

    Raises:
        ProtocolError: it is no JSON, or has no such data.
    """
    try:
        data = msgspec.json.decode(body, type=_Answer).data
        listed = bytes(data).startswith(b"[")
        items = msgspec.json.decode(data, type=list[msgspec.Raw]) if listed else [data]
        return [_value(bytes(item), kind) for item in items]
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"an answer of {len(body)} bytes is no {kind.__name__}: {error}") from error


def _value(data: bytes, kind: type[T]) -> T:
    value = converted(without_nulls(msgspec.json.decode(data, type=dict[str, Any])), kind)
    value.received = data
    return value
