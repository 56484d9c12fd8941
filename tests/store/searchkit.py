"""What a search found, as names."""

from __future__ import annotations

from storekit import Known

from p2phub.core.search import Model, Page


def names(page: Page) -> list[str]:
    return [f"{model.namespace}/{model.model}" for model in page]


def everything(crowd: Known) -> list[Model]:
    return list(crowd.page(sort="newest", limit=1000)) + list(
        crowd.page(sort="newest", limit=1000, cursor=crowd.page(sort="newest", limit=1000).cursor)
    )
