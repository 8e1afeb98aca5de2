"""What comes in and what goes out, with the limits and the examples that the OpenAPI document shows."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictInt, StringConstraints

from gramian.core.plain import Plain

__all__ = [
    "Asked", "Calibrated", "Card", "Explained", "ExplanationAnswer", "Feature", "FeaturesAnswer",
    "Found", "GivenRating", "HistoryAnswer", "Item", "ItemMap", "Items", "Kept", "Neighbours",
    "Next", "NextItems", "Pair", "Predicted", "Predictions", "ProblemDocument", "Questions",
    "Ranked", "Rating", "Recommendations", "Recommended", "Reloaded", "StateAnswer", "UserRatings",
    "Why",
]  # fmt: skip

# No control characters: they mean nothing in an id, and databases refuse some of them.
Text = Annotated[str, StringConstraints(strict=True, min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+$")]
Id = Annotated[StrictInt, Field(ge=-(2**63), lt=2**63)] | Text
Number = Annotated[float, Field(allow_inf_nan=False, ge=-1e9, le=1e9)]
RatedBy = Annotated[dict[Text, Number], Field(max_length=1000)]
N = Annotated[StrictInt, Field(ge=1, le=1000)]
Level = Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False)]
ItemIds = Annotated[list[Id], Field(max_length=10_000)]

TOY_STORY = {"1": 5.0, "260": 4.5}
ITEM = {"item": 318, "title": "Shawshank Redemption, The (1994)"}


class In(BaseModel):
    """A request: what is not known of it is refused."""

    model_config = ConfigDict(extra="forbid")


def examples(*given: Plain) -> ConfigDict:
    """Examples of a schema."""
    return ConfigDict(extra="forbid", json_schema_extra={"examples": list(given)})


# ---- asked ------------------------------------------------------------------------------------------


class Asked(In):
    """For whom: a user's id, or what somebody new rated (item: rating; it may be empty)."""

    user: Id | None = Field(None, description="A user's id.", examples=[15])
    ratings: RatedBy | None = Field(None, description="Somebody new: what they rated, item: rating.")


class Recommended(Asked):
    """A list of recommendations that is asked for."""

    model_config = examples({"user": 15, "n": 3}, {"ratings": TOY_STORY, "n": 3, "intervals": True})

    n: N = 10
    order: Literal["mean", "lower", "thompson"] = Field(
        "mean", description="By the expected rating, by what is safe, or by one draw (of models that keep draws)."
    )
    level: Level = Field(0.9, description="Of intervals, and of the lower end that 'lower' orders by.")
    seed: Annotated[StrictInt, Field(ge=0, lt=2**32)] = Field(0, description="Which draw, for 'thompson'.")
    among: ItemIds | None = Field(None, description="The items to choose from; all if not given.")
    exclude: ItemIds = Field([], description="Items to leave out, besides what was rated.")
    include_seen: bool = Field(False, description="Whether what was rated may come, too.")
    intervals: bool = Field(False, description="Whether to add the ends of each rating's interval.")
    unknown: Literal["raise", "fallback"] = Field(
        "raise", description="An unknown user: an error, or what is known without any rating."
    )


class Pair(In):
    """Who and what."""

    user: Id
    item: Id


class Predicted(In):
    """Predictions that are asked for: of pairs, or of items for somebody new."""

    model_config = examples(
        {"pairs": [{"user": 15, "item": 318}, {"user": 15, "item": 1}]}, {"ratings": TOY_STORY, "items": [318, 2571]}
    )

    pairs: Annotated[list[Pair], Field(max_length=10_000)] | None = None
    ratings: RatedBy | None = None
    items: ItemIds | None = None
    level: Level = Field(0.9, description="Of the intervals, where the model has some.")
    unknown: Literal["raise", "fallback"] = Field(
        "raise", description="Unknown ids: an error, or what the model knows without them."
    )


class Explained(Asked):
    """A prediction whose reasons are asked for."""

    model_config = examples({"user": 15, "item": 318}, {"ratings": TOY_STORY, "item": 318})

    item: Id
    n: N = 10


class Questions(Asked):
    """Items to rate next are asked for."""

    model_config = examples({"ratings": {"1": 5.0}, "n": 3})

    n: N = 10


class GivenRating(In):
    """One rating."""

    model_config = ConfigDict(title="Given")

    user: Id
    item: Id
    rating: Number
    time: Annotated[StrictInt, Field(ge=0)] | None = Field(
        None, description="When, in seconds since 1970; now if not given."
    )


class Rating(In):
    """New ratings: all are kept, or none."""

    model_config = examples({"ratings": [{"user": "15", "item": "318", "rating": 4.5}]})

    ratings: Annotated[list[GivenRating], Field(min_length=1, max_length=1000)]
    new_items: bool = Field(
        False, description="Whether items that the model does not know yet are kept, for an update."
    )


# ---- answered ---------------------------------------------------------------------------------------


class Item(BaseModel):
    """An item."""

    item: int | str
    title: str | None = None


class Found(Item):
    """An item that was searched for."""

    ratings: int = Field(description="How often it was rated in training.")


class Ranked(Item):
    """An item of a list."""

    rank: int
    score: float = Field(description="What the order is by; of 'mean' the prediction before it is clipped.")
    predicted: float = Field(description="The predicted rating, on the scale.")
    lower: float | None = None
    upper: float | None = None


class Recommendations(BaseModel):
    """A list, best first."""

    model_config = examples(
        {"model": "1f0c6e2b9a77", "from": "model",
         "items": [{"rank": 1, **ITEM, "score": 4.61, "predicted": 4.61, "lower": 3.2, "upper": 5.0}]}
    )  # fmt: skip

    model: str = Field(description="The version of the model.")
    source: Literal["model", "feedback", "ratings", "nothing"] = Field(
        alias="from",
        description="The user's row in the model, or one solved from stored feedback, given ratings, or nothing.",
    )
    items: list[Ranked]


class Predictions(BaseModel):
    """Predictions in the order of what was asked."""

    class Prediction(BaseModel):
        """One prediction; of somebody new, user is null."""

        user: int | str | None
        item: int | str
        predicted: float
        lower: float | None
        upper: float | None

    model: str
    level: float | None = Field(description="Of the intervals; null of a model without.")
    predictions: list[Prediction]


class Why(Item):
    """What one rated item adds."""

    rating: float
    contribution: float = Field(description="In units of the rating.")


class ExplanationAnswer(BaseModel):
    """Why a prediction is what it is: the rated items that pull most."""

    model_config = ConfigDict(title="Explanation")

    model: str
    item: int | str
    title: str | None
    predicted: float
    reasons: list[Why]
    rest: float = Field(description="The prediction before clipping, less all contributions: means, biases, priors.")


class Items(BaseModel):
    """Items that were found."""

    items: list[Found]


class Neighbour(Item):
    """An item near another."""

    rank: int
    similarity: float = Field(description="The cosine of the angle between their factors.")


class Neighbours(BaseModel):
    """The nearest items, nearest first."""

    model: str
    items: list[Neighbour]


class Weighed(Item):
    """An item of a latent feature."""

    rank: int
    weight: float


class Feature(BaseModel):
    """A latent feature, by the items at its two ends."""

    feature: int
    high: list[Weighed]
    low: list[Weighed]


class FeaturesAnswer(BaseModel):
    """All latent features, strongest first."""

    model_config = ConfigDict(title="Features")

    model: str
    features: list[Feature]


class Next(Item):
    """An item whose rating would tell much."""

    rank: int
    gain: float = Field(description="The expected drop in predictive variance, in squared units of the rating.")


class NextItems(BaseModel):
    """Items to ask for, most telling first."""

    model: str
    items: list[Next]


class Placed(Found):
    """An item on the map."""

    x: float
    y: float


class ItemMap(BaseModel):
    """The most rated items along the two leading latent features."""

    model: str
    items: list[Placed]


class HistoryAnswer(BaseModel):
    """The record of the training, one entry per epoch."""

    model_config = ConfigDict(title="History")

    model: str
    epochs: list[dict[str, float | int | str | bool | None]]


class Calibrated(BaseModel):
    """Errors and calibration on test ratings, where some were given."""

    model: str
    measuring: bool = Field(description="Whether it is being measured now.")
    errors: dict[str, float | int] | None
    calibration: Plain | None


class Card(BaseModel):
    """The model card."""

    version: str
    loaded_at: float
    recipe: dict[str, float | int | str | bool | None]
    users: int
    items: int
    ratings: int
    scale: list[float]
    global_mean: float
    last_epoch: dict[str, float | int | str | bool | None] | None
    ids: dict[str, str]
    abilities: Plain
    feedback: bool = Field(description="Whether new ratings are kept.")


class Kept(BaseModel):
    """The receipt of new ratings."""

    accepted: int
    repeated: bool = Field(description="Whether this was kept before, under the same idempotency key.")
    write: int


class UserRatings(BaseModel):
    """A user's stored feedback: what holds now, and how it came."""

    class Entry(BaseModel):
        """One rating as it came."""

        item: str
        rating: float
        rated_at: int
        received_at: int
        key: str
        write: int

    user: str
    ratings: dict[str, float]
    audit: list[Entry]


class Reloaded(BaseModel):
    """The version that is served now."""

    model: str
    changed: bool


class StateAnswer(BaseModel):
    """How the server is."""

    model_config = ConfigDict(title="State")

    status: str


class ProblemDocument(BaseModel):
    """An error (RFC 9457)."""

    model_config = ConfigDict(
        extra="allow",
        json_schema_extra={
            "examples": [
                {"type": "urn:gramian:problem:unknown-id", "title": "Not Found", "status": 404,
                 "detail": "The user 999 is unknown to the model; check the id."}
            ]
        },
    )  # fmt: skip

    type: str
    title: str
    status: int
    detail: str
    errors: list[dict[str, str]] | None = None
